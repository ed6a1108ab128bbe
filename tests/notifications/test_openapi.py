"""Schemathesis runs against the OpenAPI document of the FastAPI adapter, on a real server."""

import asyncio
import importlib.util
import sys

import pytest
from notifications.parsing.own_process import TOKEN, own_server

needs_schemathesis = pytest.mark.skipif(
    importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed (the group torture)"
)
CHECKS = "not_a_server_error,status_code_conformance,unsupported_method"


@pytest.mark.slow
@needs_schemathesis
@pytest.mark.parametrize("token", [None, TOKEN], ids=["any token", "the token"])
async def test_only_documented_statuses_are_returned(token, tmp_path, torture, seed):
    """None of them is a 5xx; with the valid token, requests reach the parser."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(f'[parameters]\n"path.token" = "{token}"\n' if token else "")
    async with own_server("fastapi") as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", config, "run"),
            f"http://127.0.0.1:{server.endpoint.port}/openapi.json",
            *("--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", "500" if torture else "20"),
            # Slow data generation on a busy machine or with an unlucky seed is not the server's fault.
            *("--seed", str(seed), "--suppress-health-check", "all", "--generation-database", "none", "--no-color"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert await server.post(b'{"TextSent":{"Text":{"@id":42}}}') == 204

    assert (process.returncode, b"Tested: 1" in output) == (0, True), output.decode()
