#!/bin/bash
# Installs what the labs need, on Debian, as root; does nothing when it is all there. Nothing else installs packages.
set -eu
PACKAGES="slurm-wlm slurmdbd munge mariadb-server qemu-system-x86 busybox-static cpio kmod chromium"

have() { [ "$(dpkg-query -W -f '${db:Status-Status}\n' $PACKAGES 2>/dev/null | grep -cx installed)" = "$(wc -w <<<"$PACKAGES")" ]; }
die() { echo "install.sh: $*" >&2; exit 1; }

command -v apt-get >/dev/null || die "The labs need Debian's packages, and there is no apt-get here."
if have; then echo "install.sh: Everything the labs need is installed."; exit 0; fi
[ "$(id -u)" = 0 ] || die "Installing $PACKAGES needs root; run this as root."
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || die "apt-get update failed, so the packages cannot be found."
apt-get install -y -qq --no-install-recommends $PACKAGES >/dev/null || die "apt-get could not install $PACKAGES."
echo "install.sh: Installed $PACKAGES."
