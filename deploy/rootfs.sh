#!/bin/sh
# rootfs.sh PROGRAM SBOM DIR: lays out what the image holds, in DIR/rootfs, and what is its user's below
# /var/lib, in DIR/own. The program, the libraries that it links, the authorities of webhooks' certificates, a
# user, and for scanners the bill of materials and the packages of the libraries. Used by the Containerfile
# and by `cargo xtask image`; needs Debian or alike.
set -eu
program=$1 sbom=$2 root=$3/rootfs own=$3/own
here=$(dirname "$0")

rm -rf "$root" "$own"
mkdir -p "$root/usr/bin" "$root/usr/share/doc/ringback" "$root/etc/ssl/certs" \
    "$root/var/lib/dpkg/status.d" "$own/ringback"

# Without what only a debugger reads, four fifths of it. Backtraces still name functions.
strip --strip-debug -o "$root/usr/bin/ringback" "$program"

ldd "$program" | sed -n 's|^[^/]*\(/[^ ]*\) (0x.*|\1|p' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
    # Which package it is of, where scanners look for that. Packages have it below /lib or /usr/lib.
    owner=$(dpkg-query --search "$library" "/usr$library" 2> /dev/null || true)
    package=${owner%%:*}
    dpkg-query --status "$package" > "$root/var/lib/dpkg/status.d/$package"
done
cp -L /etc/os-release "$root/etc/os-release"

# Only those that Mozilla trusts: the machine may have others of its own.
cat /usr/share/ca-certificates/mozilla/*.crt > "$root/etc/ssl/certs/ca-certificates.crt"
dpkg-query --status ca-certificates > "$root/var/lib/dpkg/status.d/ca-certificates"

echo 'root:x:0:0:root:/:/sbin/nologin
ringback:x:10001:10001:Ringback:/var/lib/ringback:/sbin/nologin' > "$root/etc/passwd"
echo 'root:x:0:
ringback:x:10001:' > "$root/etc/group"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"

cp "$here/../LICENSE" "$sbom" "$root/usr/share/doc/ringback/"
# As all who unpack it see it, whatever the umask here is.
chmod -R u=rwX,go=rX "$root"
chmod 700 "$own/ringback"
