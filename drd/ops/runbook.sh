say() { printf '%s  %s\n' "$(date -u +%H:%M:%S)" "$*" >&2; }

die() { # die WHAT [WHAT TO DO NEXT]...
    trap - ERR
    printf '\n✗ %s\n' "$1" >&2
    shift
    local line
    for line; do printf '  %s\n' "$line" >&2; done
    exit 1
}

AGAIN='Nothing is undone. When the cause is gone, run this script again: it goes on where it stopped.'

problems=0
problem() { # problem WHAT [WHAT TO DO]...: collected, so that you see all of them at once
    problems=$((problems + 1))
    printf '✗ %s\n' "$1" >&2
    shift
    local line
    for line; do printf '    %s\n' "$line" >&2; done
}

has_digest() { # has_digest FILE SHA-256
    local found
    found=$(sha256sum <"$1") && [ "${found%% *}" = "$2" ]
}

# ---- the store ------------------------------------------------------------------------------------------------------

find_store() { # the store may have moved since this script was printed
    STORE_PATH=${DRD_STORE_PATH:-${STORE_PATH-}}
    STORE_ENDPOINT=${DRD_STORE_ENDPOINT:-${STORE_ENDPOINT-}}
    STORE_BUCKET=${DRD_STORE_BUCKET:-${STORE_BUCKET-}}
    STORE_PREFIX=${DRD_STORE_PREFIX-${STORE_PREFIX-}}
    STORE_URL=s3://$STORE_BUCKET/${STORE_PREFIX:+${STORE_PREFIX%/}/}
}

aws_s3() {
    local options=(--region "$STORE_REGION")
    if [ -n "$STORE_ENDPOINT" ]; then options+=(--endpoint-url "$STORE_ENDPOINT"); fi
    aws "${options[@]}" s3 "$@" </dev/null
}

configure_aws() { # a bucket in the path, not in the host name, is something that aws takes from a file alone
    if [ "$STORE_PATH_STYLE" = yes ]; then
        local section=default
        if [ -n "${AWS_PROFILE:-}" ]; then section="profile $AWS_PROFILE"; fi
        printf '[%s]\ns3 =\n    addressing_style = path\n' "$section" >"$DRD_WORK/aws-config"
        export AWS_CONFIG_FILE="$DRD_WORK/aws-config"
    fi
    if [ -n "$STORE_CA_FILE" ]; then export AWS_CA_BUNDLE="$STORE_CA_FILE"; fi
    # Stores other than Amazon's do not all know the newer checksums; every part is checked by its SHA-256 below.
    export AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required
}

get_object() { # get_object KEY FILE
    if [ "$STORE" = s3 ]; then
        aws_s3 cp --only-show-errors "$STORE_URL$1" "$2"
    else
        cp -- "$STORE_PATH/$1" "$2"
    fi
}

get_folder() { # get_folder KEY-PREFIX: all of it at once, several objects side by side; what is here already is kept
    say "fetching $1 ..."
    aws_s3 sync --only-show-errors "$STORE_URL$1" "$DRD_WORK/stored/$1" ||
        die "the store did not give all of $1 (see above)" "$AGAIN"
}

decode() { # decode FILE: to standard output
    if [ "$ENCRYPTED" = yes ]; then
        age --decrypt --identity "$DRD_IDENTITY" "$1" | zstd --decompress --stdout --quiet
    else
        zstd --decompress --stdout --quiet <"$1"
    fi
}

good_part() { # good_part DIGEST KEY: put the path of a part with the right SHA-256 into $part
    if [ "$STORE" = local ]; then
        part=$STORE_PATH/$2
        if [ ! -f "$part" ]; then die "$2 is missing in $STORE_PATH" "$UNUSABLE"; fi
    else
        part=$DRD_WORK/stored/$2
        if [ -f "$part" ] && has_digest "$part" "$1"; then return 0; fi
        mkdir -p -- "${part%/*}" # not here yet, or cut short: fetch it by itself
        rm -f -- "$part"
        get_object "$2" "$part" || die "the store did not give $2 (see above)" "$AGAIN" "$UNUSABLE"
    fi
    has_digest "$part" "$1" || die "$2 is damaged: its SHA-256 is not $1, which the backup recorded" "$UNUSABLE"
}

# ---- from parts to files --------------------------------------------------------------------------------------------

fetch_and_decode() { # every file of the backup into $DATA; a file that is complete is never made again
    local kind first second part file='' bytes=0 skip=no done_files=0 consumed=()
    mkdir -p -- "$DATA"
    if [ "$STORE" = s3 ] && [ ! -e "$DRD_WORK/stored.complete" ]; then
        while read -r kind first <&3; do
            if [ "$kind" = folder ]; then get_folder "$first"; fi
        done 3< <(parts)
        : >"$DRD_WORK/stored.complete"
    fi
    say "checking, decrypting and decompressing into $DATA ..."
    while read -r kind first second <&3; do
        case $kind in
        file)
            finish_file
            bytes=$first file=$second skip=no consumed=()
            if [ -f "$DATA/$file" ]; then
                skip=yes
            else
                mkdir -p -- "$(dirname -- "$DATA/$file")"
                : >"$DATA/$file.partial"
            fi
            ;;
        part)
            if [ "$skip" = no ]; then
                good_part "$first" "$second"
                decode "$part" >>"$DATA/$file.partial" ||
                    die "$second cannot be decoded (see above)" "Its bytes are right; is DRD_IDENTITY the right file?"
                consumed+=("$part")
            fi
            ;;
        esac
    done 3< <(parts)
    finish_file
    say "$done_files files are complete, every part of them had the right SHA-256"
}

finish_file() { # the rename is what makes a file complete
    if [ -z "$file" ]; then return 0; fi
    done_files=$((done_files + 1))
    if [ "$skip" = yes ]; then return 0; fi
    local size
    size=$(wc -c <"$DATA/$file.partial")
    if [ "$size" -ne "$bytes" ]; then die "$file has $size bytes instead of $bytes after decoding" "$UNUSABLE"; fi
    mv -- "$DATA/$file.partial" "$DATA/$file"
    if [ "$STORE" = s3 ] && [ "${#consumed[@]}" -gt 0 ]; then printf '%s\0' "${consumed[@]}" | xargs -0 rm -f --; fi
}

# ---- checks, before anything is done --------------------------------------------------------------------------------

check_programs() {
    local program
    for program in $PROGRAMS; do
        if ! command -v "$program" >/dev/null; then problem "the program $program is not on the PATH"; fi
    done
}

check_work() {
    if [ -z "${DRD_WORK:-}" ]; then
        problem "DRD_WORK is not set" "export DRD_WORK=/path/to/an/empty/folder (it must hold $NEEDED_MIB MiB)"
        return 0
    fi
    mkdir -p -- "$DRD_WORK" || { problem "the folder $DRD_WORK cannot be made"; return 0; }
    DRD_WORK=$(cd -- "$DRD_WORK" && pwd)
    DATA=${DRD_DECODED:-$DRD_WORK/data}
    local mark=$DRD_WORK/runbook-of
    if [ -e "$mark" ] && [ "$(cat -- "$mark")" = "$BACKUP" ]; then
        say "going on with what an earlier run of this script left in $DRD_WORK"
    elif [ -n "$(ls -A -- "$DRD_WORK")" ]; then
        problem "the folder $DRD_WORK is not empty" "Name another folder in DRD_WORK; nothing is ever deleted from yours."
        return 0
    fi
    local free_mib
    free_mib=$(df -Pk -- "$DRD_WORK" | awk 'NR == 2 { printf "%d", $4 / 1024 }')
    if [ -z "${DRD_DECODED:-}" ] && [ ! -e "$mark" ] && [ "$free_mib" -lt "$NEEDED_MIB" ]; then
        problem "$DRD_WORK has $free_mib MiB free, and this backup needs $NEEDED_MIB MiB"
        return 0
    fi
    printf '%s\n' "$BACKUP" >"$mark"
}

check_store() { # the smallest part is fetched and decoded: that proves the way, the keys of the store and the identity
    if [ -z "${DRD_WORK:-}" ] || [ -z "$PROBE_KEY" ] || [ -n "${DRD_DECODED:-}" ]; then return 0; fi
    if [ "$ENCRYPTED" = yes ] && [ ! -r "${DRD_IDENTITY:-}" ]; then
        problem "DRD_IDENTITY names no file that can be read" "export DRD_IDENTITY=/path/to/file (AGE-SECRET-KEY-1...)"
        return 0
    fi
    if [ "$STORE" = s3 ]; then
        configure_aws
    elif [ ! -d "$STORE_PATH" ]; then
        problem "the store $STORE_PATH is not there" "Mount it, or say where it is: export DRD_STORE_PATH=/elsewhere"
        return 0
    fi
    local file=$DRD_WORK/probe
    if ! get_object "$PROBE_KEY" "$file"; then
        problem "the store did not give $PROBE_KEY (see above)" "$STORE_HINT"
    elif ! has_digest "$file" "$PROBE_DIGEST"; then
        problem "$PROBE_KEY is damaged: its SHA-256 is not $PROBE_DIGEST" "$UNUSABLE"
    elif ! decode "$file" >/dev/null; then
        problem "$PROBE_KEY cannot be decoded (see above)" "DRD_IDENTITY must hold the secret key of: $RECIPIENTS"
    fi
    rm -f -- "$file"
}

main() {
    trap 'if [ "$BASH_SUBSHELL" = 0 ]; then die "line $LINENO failed (see above)" "$AGAIN"; fi' ERR
    if [ "${BASH_VERSINFO[0]}" -lt 4 ]; then die "this script needs bash 4 or newer, this is $BASH_VERSION"; fi
    find_store
    say "backup $BACKUP of $SOURCE: checking everything before anything is done"
    check_programs
    if [ "$problems" -eq 0 ]; then check_work; fi
    if [ "$problems" -eq 0 ]; then check_store; check_target; fi
    if [ "$problems" -gt 0 ]; then die "$problems thing(s) to put right. Nothing was done."; fi
    if [ -z "${DRD_DECODED:-}" ] && [ -n "$PROBE_KEY" ]; then fetch_and_decode; fi
    restore_target
    say "✓ $BACKUP of $SOURCE is restored: the state as of $RECOVERY_POINT"
    say "When you have looked at it, remove $DRD_WORK: it holds the data in clear."
}
