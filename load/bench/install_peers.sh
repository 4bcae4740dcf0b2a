#!/bin/sh
# The peers that `make bench` measures beside the gateway: each in a folder of its own, none in ours, none on the
# machine. One that cannot be had is left out, and the others are installed all the same.
set -u
cd "$(dirname "$0")/../.." && mkdir -p .bench-peers && cd .bench-peers || exit 1

LITELLM=1.100.0 # the newest whose extra `proxy` asks for packages that are all there
PORTKEY=1.15.2

# Not named as the program: a function of that name would be what `command -v` finds.
get_nginx() {
	command -v nginx >/dev/null && return
	mkdir -p nginx && cd nginx && apt-get download nginx && dpkg -x nginx_*.deb . && rm nginx_*.deb
}

get_portkey() {
	mkdir -p portkey && npm install --silent --no-audit --no-fund --prefix portkey "@portkey-ai/gateway@$PORTKEY"
}

get_litellm() {
	"${PYTHON:-python3}" -m venv litellm && litellm/bin/python -m pip install --quiet --no-input \
		--disable-pip-version-check "litellm[proxy]==$LITELLM"
}

for peer in nginx portkey litellm; do
	echo "Installing $peer ..."
	("get_$peer") || echo "left out: $peer could not be installed" >&2
done
