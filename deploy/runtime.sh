#!/usr/bin/env bash
# Installs what the sandbox lends an agent: Debian's programs and fonts, and the Python packages of runtime-requirements.txt in
# <prefix>/python, which is bound at /usr/local/lib/python3.11/dist-packages inside. It must never write packages into the host's
# own Python, never use a Python other than Debian's, and never leave a half-installed <prefix>/python behind.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/runtime-requirements.txt
python=/usr/bin/python3
prefix=${PALISADE_RUNTIME:-/opt/palisade/runtime}
do_system=1 do_packages=1 check=0 dry_run=0

# One package a word. The wheels let pip build packages of Python where there is no network. libpango, pangoft2 and harfbuzz-subset are loaded by weasyprint at run time; libreoffice-core comes with
# Writer, Impress and Calc. symbola draws emoji in PDF exports of LibreOffice, which drops colour glyphs.
system_packages=(
  bubblewrap python3 python3-pip python3-venv python3-setuptools-whl python3-wheel-whl ca-certificates locales
  libreoffice-writer-nogui libreoffice-impress-nogui libreoffice-calc-nogui
  poppler-utils pandoc imagemagick git curl wget unzip fontconfig
  libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0
  fonts-noto-core fonts-noto-cjk fonts-noto-color-emoji fonts-symbola
  fonts-crosextra-carlito fonts-crosextra-caladea fonts-liberation
)

usage() {
  cat <<USAGE
Usage: deploy/runtime.sh [--prefix DIR] [--packages-only | --system-only] [--check | --dry-run]

  --prefix DIR      where the Python packages go: DIR/python (default $prefix)
  --system-only     Debian's programs and fonts only (apt)
  --packages-only   the Python packages only (pip)
  --check           install nothing; exit 0 when all is there, 1 and a list of what is missing when not
  --dry-run         print the commands that would run

Example: sudo deploy/runtime.sh --prefix /opt/palisade/runtime
USAGE
}

say() { printf 'runtime: %s\n' "$*"; }
fail() { printf 'runtime: error: %s\n' "$*" >&2; exit 1; }

while (($#)); do
  case $1 in
    --prefix) [[ ${2:-} == /* ]] || fail "--prefix needs an absolute folder, got '${2:-}'"; prefix=${2%/}; shift ;;
    --prefix=/*) prefix=${1#--prefix=}; prefix=${prefix%/} ;;
    --packages-only) do_system=0 ;;
    --system-only) do_packages=0 ;;
    --check) check=1 ;;
    --dry-run) dry_run=1 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown argument '$1'" ;;
  esac
  shift
done
((do_system || do_packages)) || fail "--packages-only and --system-only exclude each other"
[[ -f $requirements ]] || fail "$requirements is missing"

missing_system() {
  local installed name
  # dpkg-query fails when it does not know one of the names; the others are printed all the same.
  installed=" $({ dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${system_packages[@]}" 2>/dev/null || true; } |
    awk '$2 == "installed" {printf "%s ", $1}')"
  for name in "${system_packages[@]}"; do
    [[ $installed == *" $name "* ]] || printf '%s\n' "$name"
  done
  if ! command -v node >/dev/null; then printf 'nodejs\n'; fi
}

has_locale() { locale -a 2>/dev/null | grep -qix 'en_US\.utf-\?8'; }

# The interpreter's version belongs to the stamp: compiled wheels of one minor version do not load in another.
stamp() {
  { cat "$requirements"; "$python" -c 'import sys; print(sys.version_info[:2], sys.implementation.cache_tag)'; } | sha256sum | cut -d ' ' -f 1
}

packages_current() { [[ -x $python && -f $prefix/python/.stamp && $(<"$prefix/python/.stamp") == "$(stamp)" ]]; }

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -- "$@"; fi
}

install_system() {
  command -v apt-get >/dev/null || fail "this script knows Debian only (no apt-get here); install by hand: ${system_packages[*]} nodejs"
  local missing
  mapfile -t missing < <(missing_system)
  if ((${#missing[@]} == 0)) && has_locale; then
    say "system packages: all ${#system_packages[@]} are here"
    return
  fi
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}")
  local locale=(localedef -i en_US -f UTF-8 en_US.UTF-8)
  if ((dry_run)); then
    ((${#missing[@]} == 0)) || printf '%s\n' "apt-get update" "${install[*]}"
    has_locale || printf '%s\n' "${locale[*]}"
    return
  fi
  if ((EUID != 0)) && ! command -v sudo >/dev/null; then
    fail "the system packages need root. Run as root: $here/runtime.sh --system-only"
  fi
  if ((${#missing[@]})); then
    say "installing ${#missing[@]} system packages with apt (a few minutes, up to 700 MB the first time): ${missing[*]}"
    as_root apt-get update -q || say "apt-get update failed; trying with the lists at hand"
    as_root "${install[@]}" || fail "apt-get could not install: ${missing[*]}"
  fi
  if ! has_locale; then
    say "generating the locale en_US.UTF-8"
    as_root "${locale[@]}" || fail "localedef could not make en_US.UTF-8"
  fi
}

node_note() {
  local version
  version=$(node --version 2>/dev/null || true)
  if ! [[ $version =~ ^v([0-9]+) ]] || ((BASH_REMATCH[1] >= 22)); then return 0; fi
  say "note: node here is $version; agents are promised Node 22, which Debian 12 does not package. Nothing in the document skills needs it"
}

install_packages() {
  if packages_current; then
    say "Python packages: $prefix/python is current"
    return
  fi
  local count
  count=$(grep -cE '^[A-Za-z0-9]' "$requirements")
  local pip=("$python" -m pip install --target DIR --requirement "$requirements" --only-binary :all:
    --no-compile --no-warn-script-location --disable-pip-version-check --root-user-action ignore)
  if ((dry_run)); then
    printf '%s\n' "${pip[*]/DIR/$prefix/python}"
    return
  fi
  [[ -x $python ]] || fail "$python is missing: run $here/runtime.sh --system-only first"
  "$python" -m pip --version >/dev/null 2>&1 || fail "$python has no pip: apt-get install python3-pip"
  mkdir -p "$prefix" 2>/dev/null || fail "cannot make $prefix: run as root, or choose a folder of yours with --prefix"
  [[ -w $prefix ]] || fail "cannot write to $prefix: run as root, or choose a folder of yours with --prefix"

  exec 9>"$prefix/.lock"
  flock -n 9 || { say "another run is installing into $prefix; waiting for it"; flock 9; }
  if packages_current; then
    say "Python packages: $prefix/python is current"
    return
  fi
  rm -rf "$prefix"/python.new.*
  work=$(mktemp -d "$prefix/python.new.XXXXXX")
  trap 'rm -rf -- "$work"' EXIT

  say "installing $count Python packages into $prefix/python with $("$python" --version 2>&1) (about 450 MB, a minute or two)"
  local line is_tty=0 pad=''
  if [[ -t 1 ]]; then is_tty=1 pad='\r\033[K'; fi
  # PYTHON* variables of the caller could point pip at another interpreter's packages; PIP_* ones choose the index and stay.
  env -u PYTHONPATH -u PYTHONHOME PYTHONDONTWRITEBYTECODE=1 "${pip[@]/DIR/$work}" 2>&1 | while IFS= read -r line; do
    case $line in
      Collecting*) ((is_tty == 0)) || printf "${pad}runtime:   %.70s" "${line%%(*}" ;;
      Installing*) printf "${pad}runtime:   unpacking\n" ;;
      Successfully*) ;;
      ERROR* | error* | WARNING*) printf "${pad}runtime:   %.2000s\n" "$line" ;;
    esac
  done || fail "pip could not install $requirements (see above); nothing in $prefix/python was changed"

  # Tracebacks should name the place where the sandbox sees the files, and read-only mounts cannot cache bytecode later.
  "$python" -m compileall -q -j 0 -s "$work" -p /usr/local/lib/python3.11/dist-packages "$work" >/dev/null || true
  (cd / && env -u PYTHONHOME PYTHONPATH="$work" PYTHONDONTWRITEBYTECODE=1 "$python" -c '
import pandas, numpy, openpyxl, lxml.etree, defusedxml, markdown, requests, httpx, aiohttp, aiofiles, websockets
import PIL.Image, pypdfium2, croniter, asyncpg, pptx, xlsxwriter, weasyprint, markitdown') ||
    fail "the installed packages do not import in $python; nothing in $prefix/python was changed"
  stamp >"$work/.stamp"
  chmod -R u=rwX,go=rX "$work"
  [[ ! -e $prefix/python ]] || mv -T "$prefix/python" "$work.old"
  mv -T "$work" "$prefix/python"
  rm -rf -- "$work.old"
  trap - EXIT
  say "Python packages: done, $(du -sh "$prefix/python" | cut -f 1)"
}

if ((check)); then
  missing=()
  if ((do_system)); then
    mapfile -t missing < <(missing_system)
    has_locale || missing+=("locale:en_US.UTF-8")
  fi
  if ((do_packages)) && ! packages_current; then missing+=("$prefix/python"); fi
  if ((${#missing[@]})); then
    say "missing: ${missing[*]}"
    exit 1
  fi
  say "all there"
  exit 0
fi

if ((do_system)); then
  install_system
  node_note
fi
if ((do_packages)); then install_packages; fi
