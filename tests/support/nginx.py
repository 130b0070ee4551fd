"""The shipped nginx configuration in a real nginx, in front of servers of a test."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from support.certificate import self_signed
from support.ports import free_port

SHIPPED = Path(__file__).resolve().parents[2] / "docs" / "deploy" / "nginx.conf"
BINARY = shutil.which("nginx") or "/usr/sbin/nginx"
START_S = 10.0
_FRAME = """daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


class Nginx:
    """Runs `docs/deploy/nginx.conf` with this machine's ports in place of what its comments ask to change.

    `replacing`: further lines of it (regular expressions) → what stands there instead; each must be found.
    `tls` False: on a plain port, without the certificate.
    """

    def __init__(
        self, ports: Sequence[int], replacing: Mapping[str, str] | None = None, *, tls: bool = False
    ) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self.base_url = f"https://localhost:{self.port}" if tls else f"http://{self.host}:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="dc-nginx-"))
        self.access_log = self.folder / "dualcast.log"
        self.certificate, key = self_signed(self.folder) if tls else ("", "")
        nodes = "\n".join(f"server 127.0.0.1:{port} max_fails=3 fail_timeout=5s;" for port in ports)
        changes = {
            r"server 127\.0\.0\.1:8000 .*": nodes,
            r"listen 443 ssl http2;": f"listen {self.host}:{self.port}{' ssl http2' if tls else ''};",
            r"ssl_certificate .*": f"ssl_certificate {self.certificate};" if tls else "",
            r"ssl_certificate_key .*": f"ssl_certificate_key {key};" if tls else "",
            r"/var/log/nginx": str(self.folder),
            **(replacing or {}),
        }
        site = SHIPPED.read_text(encoding="utf-8")
        for pattern, instead in changes.items():
            site, found = re.subn(pattern, lambda _match, text=instead: text, site)
            assert found, f"docs/deploy/nginx.conf has no line like {pattern}"
        self._file = self.folder / "nginx.conf"
        self._file.write_text(_FRAME.format(folder=self.folder, site=site), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        process = self._launch()
        deadline = time.monotonic() + START_S
        while True:
            try:
                _, writer = await asyncio.open_connection(self.host, self.port)
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("nginx did not start:\n" + self.log()) from None
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return self

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [BINARY, "-e", str(self.folder / "start.log"), "-c", str(self._file)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        return self._process

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """All it wrote, but for the access log."""
        return "\n".join(
            file.read_text("utf-8", "replace")
            for file in self.folder.glob("*.log")
            if file != self.access_log
        )
