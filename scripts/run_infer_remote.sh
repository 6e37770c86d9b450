# shellcheck shell=bash
# The host's half of `just infer`: run one command, word by word, with the credentials of env/. Sent after
# remote/host.sh. No shell reads the words; who wants one says bash -c '...'.

run_infer_remote() {
    need_source
    load_env
    "$@"
}
