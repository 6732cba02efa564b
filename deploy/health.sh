#!/bin/bash
# The health check of the container: exits with 0 if the server answers /healthz with 200. It uses
# only bash, because a Python that starts every ten seconds costs more than many idle streams.
#
# It tries the ports that this user listens on in this network, so it needs no configuration. A
# container has a network of its own; with host networking set FASTSSE_PORT.

answers() { # address, port
    local line=
    exec 3<>"/dev/tcp/$1/$2" || return 1
    printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    read -r -t 4 line <&3
    exec 3>&-
    [[ $line == "HTTP/1.1 200"* ]]
}

address_of() { # the hexadecimal one of /proc/net/tcp, least significant byte first
    local hex=$1
    case $hex in
        00000000) echo 127.0.0.1 ;;
        00000000000000000000000000000000 | 00000000000000000000000001000000) echo ::1 ;;
        ????????) echo "$((16#${hex:6:2})).$((16#${hex:4:2})).$((16#${hex:2:2})).$((16#${hex:0:2}))" ;;
    esac
}

if [[ ${FASTSSE_PORT:-0} =~ ^[0-9]+$ && ${FASTSSE_PORT:-0} != 0 ]]; then
    answers 127.0.0.1 "$FASTSSE_PORT" && exit 0
fi 2>/dev/null

for table in /proc/net/tcp /proc/net/tcp6; do
    [[ -r $table ]] || continue
    while read -r _ local _ state _ _ _ user _; do
        [[ $state == st ]] && continue
        # Listeners come first; a hundred thousand other connections may follow.
        [[ $state == 0A ]] || break
        [[ $user == "$EUID" ]] || continue
        address=$(address_of "${local%:*}")
        [[ -n $address ]] && answers "$address" "$((16#${local#*:}))" && exit 0
    done 2>/dev/null <"$table"
done
exit 1
