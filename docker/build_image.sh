#!/usr/bin/env bash
# Build a target of the Dockerfile with buildah, and prove that it serves: read-only, as user 10001.
#
#   docker/build_image.sh light        # or cpu, gpu; the image is openvocab:TARGET
#
# Where no registry is reached, the base image is made by debootstrap (Debian 12 has Python 3.11 as
# well). pip inside is configured as it is here. For the superuser; needs buildah and debootstrap.
set -euo pipefail

target=${1:-light}
: "${BUILDAH:=buildah}"  # with options of its own, such as --root FOLDER; MIRROR: of debootstrap
export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
base=python:3.11-slim-bookworm
cd "$(dirname "$0")/.."

base_image() {
  $BUILDAH inspect --type image "$base" >/dev/null 2>&1 && return
  $BUILDAH pull --quiet "$base" >/dev/null 2>&1 && return
  echo "no registry is reached: the base is made by debootstrap"
  folder=$(mktemp -d)
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    bookworm "$folder" ${MIRROR:-} >"$folder.log" || { tail "$folder.log" >&2; exit 1; }
  ln -s python3 "$folder/usr/bin/python"
  # what slim images of Python lack as well: packages as downloaded and their lists, manuals, and
  # translations. Licences stay
  rm -rf "$folder"/var/cache/apt/* "$folder"/var/lib/apt/lists/* "$folder"/var/log/* \
    "$folder"/usr/share/{man,info,locale,lintian}/*
  find "$folder/usr/share/doc" -depth \( -type f ! -name copyright -o -type d -empty \) -delete
  container=$($BUILDAH from scratch)
  $BUILDAH add --quiet "$container" "$folder" / >/dev/null
  $BUILDAH config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
  $BUILDAH commit --quiet "$container" "$base" >/dev/null
  $BUILDAH rm "$container" >/dev/null
  rm -rf "$folder" "$folder.log"
}

# what pip is told here: its configuration, and the files that this names
pip_settings() {
  python3 - <<'PYTHON'
import configparser, pathlib
file = pathlib.Path("/etc/pip.conf")
if file.exists():
    settings = configparser.ConfigParser()
    settings.read(file)
    found = [settings.get("global", "cert", fallback=""),
             *settings.get("global", "find-links", fallback="").split()]
    for path in (str(file), *(name for name in found if pathlib.Path(name).exists())):
        print(f"--volume={path}:{path}:ro")
PYTHON
}

# a command on the image's files, which nothing can write to but /data and /tmp, as the only process
# of its kind that it sees; $settings are the image's own variables, and those of this trial. In
# place of the shell that calls it: then it ends with that shell's process
inside() {
  exec unshare --mount --pid --fork bash -euc '
    root=$1; shift
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    for place in data tmp; do mount -t tmpfs -o mode=1777 none "$root/$place"; done
    mount -t proc none "$root/proc"
    mount --rbind /dev "$root/dev"
    exec chroot --userspec=10001:10001 "$root" /usr/bin/env -i -C /data "$@"
  ' inside "$root" "${settings[@]}" "$@"
}

base_image
mapfile -t volumes < <(pip_settings)
$BUILDAH build --pull=never --network host "${volumes[@]}" --format docker --target "$target" \
  --tag "openvocab:$target" .

container=$($BUILDAH from --pull=never "openvocab:$target")
root=$($BUILDAH mount "$container")
port=$((20000 + RANDOM % 10000))
variables=$($BUILDAH inspect --type image \
  --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "openvocab:$target")
mapfile -t settings < <(grep = <<< "$variables")
settings+=(OPENVOCAB_MODEL=pictogram)
trap '$BUILDAH rm "$container" >/dev/null' EXIT

if [ "$target" = gpu ] && [ ! -e /dev/nvidiactl ]; then
  echo "started without a GPU:"
  ! (inside openvocab serve --port "$port") || exit 1
  settings+=(OPENVOCAB_DEVICE=cpu)
fi
inside openvocab serve --host 127.0.0.1 --port "$port" & process=$!
# what unshare began does not end with it, since it has changed its user
trap 'kill -KILL $(cat "/proc/$process/task/$process/children") || true; wait "$process" || true
  $BUILDAH rm "$container" >/dev/null' EXIT
for _ in $(seq 600); do
  curl --silent --fail "localhost:$port/readyz" && break
  kill -0 "$process"
  sleep 0.2
done
curl --silent --fail -F image=@tests/samples/cat.png -F labels=cat,dog,rocket \
  -H 'Accept: text/plain' "localhost:$port/classify" | head -1 | grep -w cat
(inside python /opt/openvocab/healthcheck.py "$port")
echo "bill of materials: $(grep -c '"purl"' "$root/opt/openvocab/sbom.cdx.json") packages"
echo "openvocab:$target: $(du -sm "$root" | cut -f1) MB"
