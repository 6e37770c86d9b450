#!/usr/bin/env bash
# Fetch tokenizer files, and prepared tokens where someone hosts them.
#
#   scripts/fetch_data.sh <output_dir>
#
# GPT-2's vocabulary and merges come from the Hugging Face Hub. The SimpleStories files
#   vocab_simplestories_8k.json  merges_simplestories_8k.txt  special_tokens_simplestories_8k.json
#   simplestories_{train,validation}_text_document.{bin,idx}   (optional)
# have no public home: they are fetched from TRANSFORMERLM_DATA_URL, the address of a folder that holds what
# transformerlm-prepare-data made; without it the script says how to make them.
#
#   TRANSFORMERLM_DATA_URL   base address; every file is looked for at $TRANSFORMERLM_DATA_URL/NAME first
#   HF_ENDPOINT, HF_TOKEN    another Hub, and the token for it
#   FETCH_ATTEMPTS           tries for each file (5); FETCH_WAIT_S seconds, times the number of tries, between them (2)
#
# What is there is not fetched again, what was cut off is continued, a file gets its name when it is whole. If there is a
# SHA256SUMS at the base address (or in <output_dir>), every file that it names must match it.
set -u -o pipefail

HUB="${HF_ENDPOINT:-https://huggingface.co}"
BASE="${TRANSFORMERLM_DATA_URL:-}"
BASE="${BASE%/}"
ATTEMPTS="${FETCH_ATTEMPTS:-5}"
WAIT_S="${FETCH_WAIT_S:-2}"
NOT_HOSTED=44

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

sha256_of() {
    if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

# Print the SHA-256 that the list has for a name, nothing if there is none.
expected_sha256() {
    [ ! -f "$output/SHA256SUMS" ] || awk -v name="$1" '$2 == name || $2 == "*" name { print $1; exit }' "$output/SHA256SUMS"
}

matches() {
    local expected
    expected="$(expected_sha256 "$1")"
    [ -z "$expected" ] || [ "$expected" = "$(sha256_of "$2")" ]
}

# Run curl once, continuing what is there; prints the HTTP status.
curl_once() {
    local url="$1" partial="$2" progress=--silent
    [ ! -t 2 ] || progress=--progress-bar
    local options=(--fail --location "$progress" --connect-timeout 10 --speed-limit 1 --speed-time 30)
    case "$url" in
        "$HUB"/*) [ -z "${HF_TOKEN:-}" ] || options+=(--config -) ;;
    esac
    # The token goes through standard input: a command line is for everyone to read.
    curl "${options[@]}" --continue-at - --output "$partial" --write-out '%{http_code}' "$url" \
        <<<"header = \"Authorization: Bearer ${HF_TOKEN:-}\""
}

# Fetch a URL into a file; returns NOT_HOSTED if the server has no such file.
download() {
    local url="$1" partial="$2" attempt=1 status http
    while :; do
        http="$(curl_once "$url" "$partial")"
        status=$?
        [ "$status" -ne 0 ] || return 0
        case "$status:$http" in
            22:404 | 22:410) return "$NOT_HOSTED" ;;
            22:401 | 22:403) fail "$url: access refused ($http); set HF_TOKEN, or check that you may read it" ;;
            22:416 | 33:*) rm -f "$partial" ;; # what is there cannot be continued: begin again
            22:429 | 22:5?? | 5:* | 6:* | 7:* | 16:* | 18:* | 28:* | 35:* | 52:* | 55:* | 56:* | 92:*) ;;
            *) fail "$url: curl ended with $status (HTTP $http)" ;;
        esac
        if [ "$attempt" -ge "$ATTEMPTS" ]; then
            case "$status" in
                5 | 6 | 7 | 28) fail "$url cannot be reached: is there a network? Run this again when there is, or set TRANSFORMERLM_DATA_URL or HF_ENDPOINT to a server that can be reached" ;;
                *) fail "$url: cut off $attempt times; run this again, it goes on where it stopped" ;;
            esac
        fi
        say "$(basename "$url"): cut off (curl $status, HTTP $http); trying again ($attempt of $ATTEMPTS)"
        sleep "$((attempt * WAIT_S))"
        attempt=$((attempt + 1))
    done
}

# Fetch NAME from the first of several URLs that has it; returns NOT_HOSTED if none has.
fetch() {
    local name="$1" url partial="$output/.$1.partial" status
    shift
    if [ -f "$output/$name" ]; then
        if matches "$name" "$output/$name"; then
            say "$name: there already"
            return 0
        fi
        say "$name: there, but its SHA-256 is not the one in SHA256SUMS; fetching it again"
    fi
    for url in "$@"; do
        download "$url" "$partial"
        status=$?
        [ "$status" -ne "$NOT_HOSTED" ] || continue
        if ! matches "$name" "$partial"; then
            local found
            found="$(sha256_of "$partial")"
            rm -f "$partial"
            fail "$name: its SHA-256 is $found, and SHA256SUMS says $(expected_sha256 "$name"); it was thrown away. Run this again; if it stays wrong, the file or the list at its source is"
        fi
        mv -f "$partial" "$output/$name"
        say "$name: fetched"
        return 0
    done
    return "$NOT_HOSTED"
}

require() {
    fetch "$@" || fail "$1: not at $2"
}

fetch_simplestories() {
    local part split kind
    for part in vocab_simplestories_8k.json merges_simplestories_8k.txt special_tokens_simplestories_8k.json; do
        require "$part" "$BASE/$part"
    done
    for split in train validation; do
        for kind in bin idx; do
            part="simplestories_${split}_text_document.$kind"
            fetch "$part" "$BASE/$part" || say "$part: not hosted there, and optional; transformerlm-prepare-data makes it"
        done
    done
}

explain_simplestories() {
    say "The SimpleStories files have no public home. Set TRANSFORMERLM_DATA_URL to a folder that holds them, or make them:
    uv run transformerlm-train-tokenizer --config config/resources/train_tokenizer_simplestories.toml
    uv run transformerlm-prepare-data --config config/resources/prepare_data.toml"
}

main() {
    if [ "$#" -ne 1 ] || [ -z "$1" ] || [ "${1#-}" != "$1" ]; then
        say "usage: $0 <output_dir>"
        exit 2
    fi
    command -v curl >/dev/null || fail "curl is needed"
    output="${1%/}"
    mkdir -p "$output" || fail "$output cannot be made"
    if [ -n "$BASE" ]; then
        # The list itself is fetched anew each time: it may have changed with the files.
        rm -f "$output/.SHA256SUMS.partial"
        if download "$BASE/SHA256SUMS" "$output/.SHA256SUMS.partial"; then
            mv -f "$output/.SHA256SUMS.partial" "$output/SHA256SUMS"
        else
            say "no SHA256SUMS at $BASE: files are not checked"
        fi
    fi
    require vocab_gpt2.json ${BASE:+"$BASE/vocab_gpt2.json"} "$HUB/openai-community/gpt2/resolve/main/vocab.json"
    require merges_gpt2.txt ${BASE:+"$BASE/merges_gpt2.txt"} "$HUB/openai-community/gpt2/resolve/main/merges.txt"
    [ -f "$output/special_tokens_gpt2.json" ] ||
        printf '{"pattern": "gpt2", "special_tokens": ["<|endoftext|>"]}\n' >"$output/special_tokens_gpt2.json"
    if [ -n "$BASE" ]; then fetch_simplestories; else explain_simplestories; fi
}

main "$@"
