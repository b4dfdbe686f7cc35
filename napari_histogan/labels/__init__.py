"""What people and weak sources say: classes, masks, and interchange with other programs."""
