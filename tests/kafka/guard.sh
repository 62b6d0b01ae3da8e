# Runs a broker for as long as whoever started it holds our standard input open:
#   guard.sh PIDFILE DIR COMMAND [ARGS...]
# A line on standard input kills the broker (SIGKILL); its end kills the broker and removes DIR
# (unless DIR is empty), so that nothing stays behind even when a test process is killed.
pidfile=$1 dir=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
echo "$child" >"$pidfile"
{
  if read -r _ <&3; then keep=1; else keep=; fi
  if [ -f "$pidfile" ]; then kill -KILL "$child" 2>/dev/null; fi
  if [ -z "$keep" ] && [ -n "$dir" ]; then
    while [ -f "$pidfile" ]; do sleep 0.05; done
    rm -rf "$dir"
  fi
} >/dev/null 2>&1 &
exec 3<&-
wait "$child"
status=$?
rm -f "$pidfile"
exit "$status"
