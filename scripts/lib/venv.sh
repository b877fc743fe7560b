# shellcheck shell=bash
# Sourced by the scripts beside it: makes and updates .venv in the root of the repository.
#
#   ensure_venv test,demo   installs the package, editable, with these extras and those asked for earlier,
#                           and puts .venv/bin first on PATH
#
# Nothing is installed while the interpreter, the place of the repository and pyproject.toml are those of the
# last installation and it had the extras. Two calls at once wait for each other. pip is heard only when it fails.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
venv=$root/.venv
stamp=$venv/.matterstack-install # three lines: base (interpreter and place), project, extras

say() { printf '%s\n' "$*" >&2; }

# Prints path, place and version of the first Python that is new enough, looking behind an active environment.
find_python() {
    local name
    for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        "$name" -c 'import sys
if sys.version_info >= (3, 11): print(sys._base_executable, sys.base_prefix, sys.version, sep="\n")
else: sys.exit(1)' 2>/dev/null && return
    done
    say "There is no Python 3.11 or newer on PATH. Nothing was installed. Install one, or set PYTHON to its path."
    return 1
}

install() {
    local python=$1 extras=$2 log
    log=$(mktemp)
    say "Installing into .venv (extras: $extras) ..."
    if ! { "$python" -m venv -- "$venv" && "$venv/bin/python" -m pip install --disable-pip-version-check \
        --no-input --editable "$root[$extras]"; } >"$log" 2>&1 </dev/null; then
        cat -- "$log" >&2
        say "Installing into $venv failed; the reason is above. Nothing else was done. Mend it and call this again."
        rm -f -- "$log"
        return 1
    fi
    rm -f -- "$log"
}

ensure_venv() {
    local extras found python base project lock was_base='' was_project='' was_extras=''
    found=$(find_python) || return
    python=${found%%$'\n'*}
    base=$(printf '%s\n' "$root" "${found#*$'\n'}" | sha256sum)
    project=$(sha256sum <"$root/pyproject.toml")

    exec {lock}<"$root" # the lock is on the directory itself: no file is left, and it ends with the process
    flock "$lock"
    if [[ -f $stamp && -x $venv/bin/python ]]; then
        { read -r was_base && read -r was_project && read -r was_extras; } <"$stamp" || was_base=''
    fi
    if [[ $was_base != "$base" ]]; then
        # Another interpreter, a moved repository or an installation cut short: what is there cannot be used.
        rm -rf -- "$venv"
        was_extras=''
    fi
    extras=$(printf '%s\n' ${1//,/ } ${was_extras//,/ } | sort -u | paste -sd,)
    if [[ $was_base != "$base" || $was_project != "$project" || $was_extras != "$extras" ]]; then
        rm -f -- "$stamp"
        install "$python" "$extras" || return
        printf '%s\n' "$base" "$project" "$extras" >"$stamp"
    fi
    exec {lock}<&-
    export PATH=$venv/bin:$PATH
}
