# shellcheck shell=bash disable=SC2154
# The host's half of `just bootstrap-remote`: tools, and an empty repository to push into. Sent after remote/host.sh.
# What is there already is left alone, so a second run takes no time.

TOOL_FOLDER=$HOME/.local/share/transformerlm/uv

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

can_become_root() { [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }

# install_packages NAME...: Debian packages that are named like the command they bring.
install_packages() {
    local missing=() tool
    for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    [ "${#missing[@]}" -gt 0 ] || return 0
    local by_hand="install them as root (apt-get install ${missing[*]}) and run this again"
    command -v apt-get >/dev/null || die "this host lacks ${missing[*]} and has no apt-get; $by_hand"
    can_become_root || die "this host lacks ${missing[*]}, and ${USER:-this user} may not become root without a password; $by_hand"
    say "installing ${missing[*]}"
    as_root apt-get -o DPkg::Lock::Timeout=120 -qq update >&2 || say "note: apt-get update failed; going on with what it knew"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -qq install "${missing[@]}" >&2 ||
        die "apt-get could not install ${missing[*]} (above); $by_hand"
    hash -r
    for tool in "${missing[@]}"; do command -v "$tool" >/dev/null || die "$tool is still missing; $by_hand"; done
}

# uv comes from PyPI where Python can make a virtual environment, and else from its own installer.
install_uv() {
    command -v uv >/dev/null && return
    say "installing uv"
    mkdir -p "$HOME/.local/bin"
    if python3 -m venv --clear "$TOOL_FOLDER" >/dev/null 2>&1 && "$TOOL_FOLDER/bin/pip" install --quiet uv >&2; then
        ln -sf "$TOOL_FOLDER/bin/uv" "$HOME/.local/bin/uv"
    else
        curl -LsSf https://astral.sh/uv/install.sh | UV_NO_MODIFY_PATH=1 sh >&2 || true
    fi
    command -v uv >/dev/null || die "uv could not be installed (above); install it on the host and run this again"
}

# install_helper COMMAND PACKAGE: training needs none of these, so a failure is only told.
install_helper() {
    command -v "$1" >/dev/null && return
    say "installing $1"
    uv tool install --quiet "$2" >&2 || say "note: $1 could not be installed; training does not need it"
}

make_repository() {
    if [ ! -e "$REMOTE_ROOT/.git" ]; then
        if [ -e "$REMOTE_ROOT" ] && [ -n "$(ls -A "$REMOTE_ROOT")" ]; then
            die "$REMOTE_ROOT on the host holds something else; set REMOTE_ROOT to another folder, or empty this one"
        fi
        mkdir -p "$REMOTE_ROOT" || die "$REMOTE_ROOT cannot be made on the host; set REMOTE_ROOT to a folder that can"
    fi
    git init --quiet "$REMOTE_ROOT" # on one that is there already it only puts back what an interrupted init left out
    # What the host keeps is no edit and is never cleaned away, whatever the source's own .gitignore says.
    printf '/%s\n' data/ runs/ 'env/*.env' .venv/ uv.lock >"$REMOTE_ROOT/.git/info/exclude"
}

warn_if_disk_is_small() {
    local free_kb
    free_kb=$(df -kP "$REMOTE_ROOT" | awk 'NR == 2 { print $4 }')
    [ "$free_kb" -gt 10000000 ] || [ -x "$PYTHON" ] ||
        say "note: $((free_kb / 1000000)) GB are free at $REMOTE_ROOT; the packages with torch's CUDA build want about 10"
}

bootstrap_remote() {
    take_lock
    install_packages git tmux rsync curl
    install_uv
    install_helper just rust-just
    install_helper nvitop nvitop
    make_repository
    warn_if_disk_is_small
}
