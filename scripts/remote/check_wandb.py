"""Find out, on the host and before training starts, whether Weights & Biases will take its log.

    check_wandb.py RESOLVED_CONFIG     exit code 0: yes, or it does not matter; 1: no, and why

Only a configuration that logs to wandb online needs a key. The key is asked about with wandb's own API, read from the
environment or ~/.netrc, and never printed. A server that cannot be reached is no reason to stop: the run is then
recorded offline.
"""

import base64
import json
import netrc
import os
import sys
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

DEFAULT_URL = "https://api.wandb.ai"
TIMEOUT_S = 10
REMEDY = "put WANDB_API_KEY into env/wandb.env and run: just sync-env (or train with --set wandb.mode=offline)"


def wants_server(config: dict) -> bool:
    """Tell whether this configuration, in this environment, logs to a wandb server."""
    mode = os.environ.get("WANDB_MODE") or config["wandb"]["mode"]
    return "wandb" in config["logging"]["backends"] and mode not in ("offline", "disabled", "dryrun")


def find_key(url: str) -> str:
    """Return the key for a server, empty if there is none."""
    if key := os.environ.get("WANDB_API_KEY", "").strip():
        return key
    try:
        entry = netrc.netrc().authenticators(urllib.parse.urlsplit(url).hostname or "")
    except (FileNotFoundError, netrc.NetrcParseError):
        return ""
    return entry[2] or "" if entry else ""


def ask_for_viewer(url: str, key: str) -> str | None:
    """Return the user's name, None if the key is refused. Raises OSError if there is no answer."""
    request = urllib.request.Request(
        f"{url.rstrip('/')}/graphql",
        data=json.dumps({"query": "query Viewer { viewer { username } }"}).encode(),
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            viewer = json.load(response).get("data", {}).get("viewer")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return None
        raise
    except ValueError as error:  # an answer that is no JSON: some proxy's page
        raise OSError(f"the answer is not wandb's: {error}") from error
    return viewer and (viewer.get("username") or "unknown user")


def main(config_path: str) -> int:
    """Say what was found; returns the exit code."""
    config = tomllib.loads(Path(config_path).read_text(encoding="utf-8"))
    if not wants_server(config):
        return 0
    url = os.environ.get("WANDB_BASE_URL") or DEFAULT_URL
    key = find_key(url)
    if not key:
        print(f"error: this configuration logs to wandb, and the host has no key for {url}; {REMEDY}", file=sys.stderr)
        return 1
    try:
        user = ask_for_viewer(url, key)
    except OSError as error:
        print(f"note: {url} could not be asked about the key ({error}); training will try again", file=sys.stderr)
        return 0
    if user is None:
        print(f"error: {url} refuses the key that is on the host; {REMEDY}", file=sys.stderr)
        return 1
    print(f"wandb: logged in as {user}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
