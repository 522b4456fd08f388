#!/bin/sh
# Programs that can do nothing in a sandbox, and what to do instead.
name=${0##*/}
case $name in
  apt | apt-get | aptitude)
    say='system packages cannot be installed here. Look for what is there with `command -v NAME`, or install for yourself: pip install NAME, npm install -g NAME' ;;
  su | sudo)
    say='there is no other user here, and none is needed: run the command itself. /workspace, $HOME and $TMPDIR are yours to write; the system is read-only' ;;
  service | systemctl)
    say='nothing starts services here: start the program itself, as a command of its own with "background": true' ;;
  at | crontab)
    say='nothing runs at set times here: run the command now, or loop in a command with "background": true' ;;
esac
echo "$name: $say" >&2
exit 1
