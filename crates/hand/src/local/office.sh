#!/bin/sh
# A profile for each LibreOffice that runs: two that share one end each other without a word. A profile is used again
# when it is free, since a new one costs a second.
for argument in "$@"; do
  case $argument in -env:UserInstallation=*) exec "/usr/bin/${0##*/}" "$@" ;; esac
done
profiles=$HOME/.cache/libreoffice
mkdir -p "$profiles" || exit 1
number=1
while [ "$number" -le 16 ]; do
  # Held by all that LibreOffice starts, and let go when the last of it is gone.
  exec 9>"$profiles/$number.lock"
  if flock --nonblock 9; then
    exec "/usr/bin/${0##*/}" "-env:UserInstallation=file://$profiles/$number" "$@"
  fi
  number=$((number + 1))
done
echo "${0##*/}: 16 of them are running already; wait for one to end" >&2
exit 1
