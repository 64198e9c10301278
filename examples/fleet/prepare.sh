#!/bin/sh
# Makes the secrets of the fleet, once: `sh prepare.sh`, in this folder or from anywhere. Needs openssl.
set -eu
cd "$(dirname "$0")"
folder=${SECRETS:-secrets}
if [ -e "$folder" ]; then
    echo "$folder is there already; remove it for new secrets" >&2
    exit 1
fi
# The folder is yours alone. The files in it are read inside of containers, by other users.
mkdir -m 700 "$folder"
umask 022
new() { openssl rand -hex 32; }
service=$(new) edge=$(new) plane=$(new)

sed -e "/^user edge /s/>[^ ]*/>$edge/" -e "/^user control-plane /s/>[^ ]*/>$plane/" \
    ../../config/redis.acl > "$folder/redis.acl"

cat > "$folder/edge.env" <<EOF
PREVIEW_EDGE_CONTROL_PLANE__TOKEN=$service
PREVIEW_EDGE_REDIS__URL=redis://edge:$edge@redis:6379
PREVIEW_EDGE_COOKIE__KEYS=[{"kid":"1","secret":"$(new)"}]
EOF

cat > "$folder/control-plane.json" <<EOF
{
  "port": 3000,
  "api_key": "$(new)",
  "service_token": "$service",
  "public_hostname": "preview.localhost",
  "public_scheme": "https",
  "public_port": 8443,
  "reserved_ports": [3001, 3002, 3003, 3011, 3012, 3013, 8443],
  "data_dir": "/var/lib/preview-edge",
  "demo": true,
  "redis": {"url": "redis://control-plane:$plane@redis:6379"}
}
EOF

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -subj "/CN=preview.localhost" -addext "subjectAltName=DNS:*.preview.localhost" \
    -keyout "$folder/tls.key" -out "$folder/tls.crt" 2>/dev/null
chmod 644 "$folder/tls.key"
