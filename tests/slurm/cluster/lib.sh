# shellcheck shell=bash
# Shared by the scripts of this folder: paths, messages, host packages, cgroup groups, cluster state.

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
repository=$(readlink -f "$here/../../..")
cache=$(readlink -m "${AIFB_CACHE:-$repository/.cache}")
program=${0##*/}

# Exit code of "cannot be had on this machine" (a test is then skipped, loudly).
readonly cannot=77

# Seconds allowed for each wait: starting a cluster takes about 4 s, so a busy machine has a margin.
# shellcheck disable=SC2034 # used by the scripts
readonly start_deadline=${AIFB_START_DEADLINE:-90}
# shellcheck disable=SC2034 # used by the scripts
readonly stop_deadline=20

die() { # MESSAGE [HINT]
    printf '%s: %s\n' "$program" "$1" >&2
    [[ -z ${2:-} ]] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

cannot() { # MESSAGE [HINT]
    printf '%s: cannot be had here: %s\n' "$program" "$1" >&2
    [[ -z ${2:-} ]] || printf 'hint: %s\n' "$2" >&2
    exit "$cannot"
}

# Prints the address of the Debian archive that this machine's apt uses, or AIFB_DEBIAN_MIRROR.
debian_mirror() {
    local site=${AIFB_DEBIAN_MIRROR:-}
    if [[ -z $site ]]; then
        # shellcheck disable=SC2016 # apt's own words
        site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | grep -v security | head -n 1) || true
    fi
    [[ -n $site ]] || cannot "apt knows no Debian archive" "name one: AIFB_DEBIAN_MIRROR=URL"
    printf '%s\n' "$site"
}

say() { printf '%s: %s\n' "$program" "$*" >&2; }

# The comment block at the top of a script is its help text.
help() {
    sed -n '2,${/^#/!q;s/^# \{0,1\}//;p}' "$(readlink -f "$0")"
    exit 0
}

need_root() {
    [[ $EUID == 0 ]] || cannot "this needs root" "run it with sudo, or inside a container that allows namespaces"
}

need_namespaces() {
    unshare --mount --pid --net --uts --ipc --cgroup --fork true 2>/dev/null ||
        cannot "this machine forbids new namespaces" "run on a virtual machine, or in a privileged container"
}

# Installs what is missing on the host: host_packages COMMAND=PACKAGE ...
host_packages() {
    local pair missing=()
    for pair; do
        command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    need_root
    command -v apt-get >/dev/null ||
        cannot "these packages are missing: ${missing[*]}" "install them by hand; only Debian's apt-get is automated"
    say "installing on this machine: ${missing[*]}"
    local log
    log=$(mktemp)
    if ! { apt-get -qq update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        cannot "apt-get could not install ${missing[*]}" "its messages are above"
    fi
    rm -f "$log"
}

valid_name() {
    [[ $1 =~ ^[a-z0-9][a-z0-9-]{0,31}$ ]] ||
        die "reading the cluster's name '$1': not a name" "use a to z, 0 to 9 and '-', at most 32 characters"
}

state_of() { printf '%s/clusters/%s\n' "$cache" "$1"; }

# The group that holds a cluster in every cgroup hierarchy. The hash keeps clusters of the same name
# that belong to different checkouts apart.
group_of() { # NAME
    local hash
    hash=$(state_of "$1" | cksum)
    printf 'aifb-%s-%s\n' "$1" "${hash%% *}"
}

# The mount points of all cgroup hierarchies (v1 controllers, named ones and v2).
cgroup_mounts() {
    local fields
    while read -r -a fields; do
        case " ${fields[*]} " in
        *' - cgroup '* | *' - cgroup2 '*) printf '%s\n' "${fields[4]}" ;;
        esac
    done </proc/self/mountinfo
}

# Puts this shell into a group of every hierarchy. In cgroup v2 only leaves hold processes: `init` is
# the leaf for what enters a node, or `guests` once slurmd has made groups below its own, `init`; the
# node's first process starts in the group itself, which makes it the root of the node's view.
join_group() { # GROUP [first]
    local mount
    while read -r mount; do
        if [[ -z ${2:-} && -d $mount/$1/init ]]; then
            if ! echo 0 2>/dev/null >"$mount/$1/init/cgroup.procs"; then
                mkdir -p "$mount/$1/guests"
                echo 0 >"$mount/$1/guests/cgroup.procs"
            fi
        elif [[ -d $mount/$1 ]]; then
            echo 0 >"$mount/$1/cgroup.procs"
        fi
    done < <(cgroup_mounts)
}

# Processes of a cluster, as this machine numbers them.
cluster_processes() { # NAME
    local group mount
    group=$(group_of "$1")
    while read -r mount; do
        [[ -d $mount/$group ]] || continue
        find "$mount/$group" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done < <(cgroup_mounts) | sort -un
}

# Is the cluster's outer process the one that the state folder names?
is_up() { # NAME
    local pid line group
    group=$(group_of "$1")
    read -r pid 2>/dev/null <"$(state_of "$1")/pid" || return 1
    while read -r line; do
        [[ $line != *":/$group/"* ]] || return 0
    done 2>/dev/null <"/proc/$pid/cgroup"
    return 1
}
