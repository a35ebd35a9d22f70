# What both scripts of CI use; sourced.

step() {
  # The other script has failed, and has said why in its log.
  if [ -e "$out/failed" ] && [ -z "${apart-}" ]; then exit 1; fi
  printf '\n=== %s (%d s)\n' "$*" "$SECONDS"
}

# Programs of tests by name, one a line: the name, a tab, the path. With them come the command
# and what else their tests start.
programs() {
  "$@" --no-run --message-format=json 2>/dev/null | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]:
        print(message["target"]["name"], message["executable"], sep="\t")'
}
# program NAME < programs
program() { awk -F '\t' -v name="$1" '$1 == name { print $2; found = 1 } END { exit !found }'; }

# Where the vectors' width makes no difference to what is tested, the kernel without any is a
# quarter of the time to compile.
portable="--cfg softmax_portable"
