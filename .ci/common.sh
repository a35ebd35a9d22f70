# Functions of both CI scripts; sourced.

# step NAME: begins a step. It prints how long the script has run and the processor time of its
# steps, which other work on the machine hardly changes.
step() {
  # The other script has failed and printed the reason in its log.
  if [ -e "$out/failed" ] && [ -z "${apart-}" ]; then exit 1; fi
  # There is no pipe here, because it would be another process, with its own times.
  times > "$out/times${apart-}"
  printf '\n=== %s (%d s, %d s of CPU)\n' "$*" "$SECONDS" "$(awk -F '[ms ]+' '
    { total += 60 * ($1 + $3) + $2 + $4 } END { print int(total) }' "$out/times${apart-}")"
}

# Prints the test programs that cargo builds with these arguments: the name, a tab, the path, one a
# line.
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

# Runs a test program and prints what it printed. A filter that matches no test fails.
some() {
  local shown status=0
  shown=$("$@") || status=$?
  printf '%s\n' "$shown"
  [ $status = 0 ] && grep -qE '[1-9][0-9]* passed' <<< "$shown"
}

# Tests that do not depend on the width of vectors use the portable kernel, which compiles in
# less than half of the time.
portable="--cfg softmax_portable"
# The same with the CPU's own fused operations, as on AArch64, for tests that compute much.
fused="$portable -Ctarget-feature=+avx2,+fma"
