# shellcheck shell=bash
# Sourced by scripts/browser, after venv.sh.
#
#   ensure_chromium     installs Debian's Chromium where there is none; apt is heard only when it fails

ensure_chromium() {
    local log
    command -v chromium >/dev/null && return
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        say "There is no Chromium here, and only root on Debian can install it. Nothing was installed; install chromium by hand, then call this again."
        return 1
    fi
    log=$(mktemp)
    say "Installing Chromium ..."
    # The lists of packages may be missing or old; on most machines they are neither.
    if ! apt_install chromium >"$log" 2>&1 && ! { apt-get update -qq && apt_install chromium; } >"$log" 2>&1; then
        cat -- "$log" >&2
        say "Installing Chromium failed; the reason is above. Mend it and call this again."
        rm -f -- "$log"
        return 1
    fi
    rm -f -- "$log"
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" </dev/null
}
