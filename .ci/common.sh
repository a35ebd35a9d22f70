# What both scripts of CI use; sourced.

# step NAME: begins a step; prints for how long the script has run, and what its steps took of the
# processors, which other work on the machine hardly changes.
step() {
  # The other script has failed, and has said why in its log.
  if [ -e "$out/failed" ] && [ -z "${apart-}" ]; then exit 1; fi
  # Not in a pipe: that would be another process, with its own times.
  times > "$out/times${apart-}"
  printf '\n=== %s (%d s, %d s of CPU)\n' "$*" "$SECONDS" "$(awk -F '[ms ]+' '
    { total += 60 * ($1 + $3) + $2 + $4 } END { print int(total) }' "$out/times${apart-}")"
}

# Programs of tests that cargo has built by these arguments: the name, a tab, the path, one a line.
programs() {
  "$@" --message-format=json 2>/dev/null | python3 -c '
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
