"""A job by a real ssh to a real sshd on loopback, where one is installed; ``HISTOGAN_SSHD`` names another."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_histogan.config import TrainGanConfig
from napari_histogan.jobs.runner import start_job
from napari_histogan.project.store import Project

SSHD = os.environ.get("HISTOGAN_SSHD") or shutil.which("sshd") or "/usr/sbin/sshd"
pytestmark = pytest.mark.skipif(
    not (Path(SSHD).is_file() and shutil.which("ssh") and shutil.which("ssh-keygen")),
    reason="needs ssh, ssh-keygen, and sshd",
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with a key of its own, and the name by which ``ssh`` reaches it."""
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copyfile(folder / "user.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nUsePAM no\n"
    )
    (folder / "config").write_text(
        f"Host loopback\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\n"
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nStrictHostKeyChecking no\n"
        f"UserKnownHostsFile {folder}/known\nLogLevel ERROR\n"
    )
    ssh = folder / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(ssh.parent), prepend=":")
    server = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE, text=True
    )
    try:
        for _ in range(100):
            if server.poll() is not None:
                pytest.skip(f"sshd does not start here: {server.stderr.read() if server.stderr else ''}")
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield "loopback"
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_a_job_is_done_by_a_real_sshd(project: Project, stages: str, host: str) -> None:
    job = start_job(
        project.root, TrainGanConfig(kimg=3), pipeline=stages, launcher=f"ssh {host} {sys.executable}"
    )
    status = job.wait(240)
    assert status.state == "done", (status.error, job.tail_log())
    assert project.artifact("", "generator").number == job.number
    assert [event["step"] for event in job.events()[0] if event["kind"] == "metric"] == [1, 2, 3]
