# Output comes by pipes: a script that opens /dev/stderr anew would empty a file. What is beyond the limit is counted.
# A pump copies as it comes; only the last 4 KiB below the limit wait until they are complete.
sshjob_pump() {
  exec 3>>"$sshjob_dir/$1"
  sshjob_left=$sshjob_max
  while [ "$sshjob_left" -gt 0 ]; do
    sshjob_flag=iflag=fullblock sshjob_block=$sshjob_left
    [ "$sshjob_left" -lt 4096 ] || sshjob_flag='' sshjob_block=4096
    [ "$sshjob_left" -lt 67108864 ] || sshjob_block=65536
    sshjob_count=$((sshjob_left / sshjob_block)) sshjob_before=$sshjob_left
    dd bs="$sshjob_block" count="$sshjob_count" $sshjob_flag >&3 2>/dev/null || break
    sshjob_key=
    read -r sshjob_key sshjob_stored </proc/self/fdinfo/3
    [ "$sshjob_key" = pos: ] || sshjob_stored=$(wc -c <"$sshjob_dir/$1")
    sshjob_left=$((sshjob_max - sshjob_stored))
    # Each block has a byte at least: less than one for each was all that there is.
    [ $((sshjob_before - sshjob_left)) -ge "$sshjob_count" ] || return 0
  done
  exec 3>&-
  sshjob_count=$(wc -c)
  set -- "$1" $sshjob_count
  [ "$2" = 0 ] && [ "$sshjob_left" -le 0 ] || echo "$2" 1<>"$sshjob_dir/$1.rest"
}

sshjob_leads() {
  read -r sshjob_leader sshjob_since sshjob_rest <"$sshjob_dir/leader" && sshjob_alive "$sshjob_leader" "$sshjob_since"
}

# Beats, and ends what takes too long. Outlives a supervisor that is killed for as long as there is something to watch; one
# that waits for the end of the output is told of every nap, the first of which may have begun before. From the second beat
# on it tells what had run out of memory before, for whoever finds the end to compare with, and who the pumps are. Most have
# ended before that, and the two take as long as starting three programs.
sshjob_watch() {
  sshjob_sleep=
  trap 'kill "$sshjob_sleep"; exit' TERM
  sshjob_up=${sshjob_up%.*}${sshjob_up#*.}
  sshjob_end=$((sshjob_up + sshjob_limit * 100))
  sshjob_ooms=
  while :; do
    read -r sshjob_now sshjob_rest </proc/uptime
    echo "$sshjob_now $sshjob_ooms " 1<>"$sshjob_dir/beat"
    sshjob_left=$((sshjob_end - ${sshjob_now%.*}${sshjob_now#*.}))
    sshjob_nap=2
    # Before the first nap there is nothing to watch yet, or hardly.
    if [ -n "$sshjob_ooms" ] && sshjob_leads; then
      [ "$sshjob_left" -gt 0 ] || break
      # What ends does so soon, mostly.
      [ $((sshjob_end - sshjob_left - sshjob_up)) -lt 1000 ] || sshjob_nap=10
    fi
    sshjob_left=$(((sshjob_left + 99) / 100))
    [ "$sshjob_left" -le 0 ] || [ "$sshjob_left" -gt "$sshjob_nap" ] || sshjob_nap=$sshjob_left
    sleep "$sshjob_nap" &
    sshjob_sleep=$!
    wait "$sshjob_sleep"
    sshjob_sleep=
    [ -n "$sshjob_ooms" ] || { sshjob_count_ooms; sshjob_record_pumps; }
    if ! sshjob_leads; then
      sshjob_alive "$1" "$2" || exit
      # Before there is a program nobody waits, and ksh would take the signal for the program's end.
      [ -z "$sshjob_leader" ] || kill -USR1 "$1"
    fi
  done
  trap - TERM
  sshjob_leads || exit
  echo "timed_out $sshjob_now " 1<>"$sshjob_dir/why"
  # One that has not yet got as far as its own group is alone.
  if [ "$sshjob_group" = "$sshjob_leader" ]; then sshjob_stop "-$sshjob_leader"; else sshjob_stop "$sshjob_leader"; fi
}

# What has ended holds no memory, whether it has been waited for or not. That is a shorter read than its state.
sshjob_over() {
  sshjob_size=0
  [ ! -r "/proc/$1/statm" ] || read -r sshjob_size sshjob_rest <"/proc/$1/statm"
  [ "${sshjob_size:-0}" = 0 ]
}

# As long as they live, not all that the program wrote is stored.
sshjob_record_pumps() {
  sshjob_pumps=
  for sshjob_pid in "$sshjob_out" "$sshjob_err"; do
    sshjob_stat=
    [ ! -r "/proc/$sshjob_pid/stat" ] || read -r sshjob_stat <"/proc/$sshjob_pid/stat"
    set -- ${sshjob_stat#*") "}
    sshjob_pumps="$sshjob_pumps$sshjob_pid ${20:-0} "
  done
  echo "$sshjob_pumps" 1<>"$sshjob_dir/pumps"
}

trap 'sshjob_naps=$((sshjob_naps + 1))' USR1
if [ -n "$sshjob_fifos" ]; then
  # shellcheck disable=SC2094 # pipes, all
  exec 3<>"$sshjob_dir/stdout" 4>"$sshjob_dir/stdout" 5<"$sshjob_dir/stdout" 3>&-
  # shellcheck disable=SC2094
  exec 3<>"$sshjob_dir/stderr" 6>"$sshjob_dir/stderr" 7<"$sshjob_dir/stderr" 3>&-
  exec 8<>"$sshjob_dir/said"
else
  exec 4>/proc/self/fd/5 6>/proc/self/fd/7 8<>/proc/self/fd/8
fi
# By `exec`: around a function, or a subshell, a shell may keep what it is to close, for afterwards.
{ exec <&5 4>&- 5<&- 6>&- 7<&- 8>&-; sshjob_pump out; } &
sshjob_out=$!
{ exec <&7 4>&- 5<&- 6>&- 7<&- 8>&-; sshjob_pump err; } &
sshjob_err=$!
set -- $sshjob_self
{ exec 4>&- 5<&- 6>&- 7<&- 8>&-; sshjob_watch "$2" "$3"; } &
sshjob_watcher=$!
exec 5<&- 7<&-

# Of a child that was ended by a signal a shell says so, in its own words; its status alone could be the child's own.
# As /bin/sh, bash would keep quiet.
# shellcheck disable=SC3040
[ -z "$BASH_VERSION" ] || ! (set +o posix) || set +o posix
{
  (
    exec >&4 2>&6 4>&- 6>&- 8>&-
    # What has no record here has not begun. The number and the time stay what they are: nobody forks any more.
    read -r sshjob_stat </proc/self/stat
    # ksh forks only where it must, as to change a limit.
    # shellcheck disable=SC3045
    [ "${sshjob_stat%% *}" != "$sshjob_pid" ] || { ulimit -S -c "$(ulimit -S -c)"; read -r sshjob_stat </proc/self/stat; }
    set -- "${sshjob_stat%% *}" ${sshjob_stat#*") "}
    echo "$1 ${21} recorded" 1<>"$sshjob_dir/leader" || exit 126
    umask "$sshjob_mask"
    eval "$sshjob_job"
    exec "$sshjob_setsid" "$@"
  )
  sshjob_status=$?
} 2>&8
exec 4>&- 6>&-
echo >&8
read -r sshjob_said <&8
exec 8>&-
if [ "$sshjob_status" -gt 256 ]; then
  sshjob_status="signal $((sshjob_status - 256))"
elif [ "$sshjob_status" -gt 128 ] && [ -n "$sshjob_said" ]; then
  sshjob_status="signal $((sshjob_status - 128))"
else
  sshjob_status="exit $sshjob_status"
fi
read -r sshjob_up sshjob_rest </proc/uptime
sshjob_ooms=-
[ "$sshjob_status" != "signal 9" ] || sshjob_count_ooms

# Whoever was asked to end, ends with its whole group.
read -r sshjob_why sshjob_rest <"$sshjob_dir/why"
read -r sshjob_leader sshjob_rest <"$sshjob_dir/leader"
case $sshjob_why in
  timed_out)
    wait "$sshjob_watcher"
    # The watch may have been killed.
    ! kill -0 "-$sshjob_leader" || sshjob_stop "-$sshjob_leader"
    ;;
  cancelled)
    # Whoever cancels sends KILL after ten seconds; this does after twelve, for that may have been cut off.
    sshjob_tries=60
    while [ "$sshjob_tries" -gt 0 ] && kill -0 "-$sshjob_leader"; do sshjob_nap; done
    [ "$sshjob_tries" -gt 0 ] || kill -KILL "-$sshjob_leader"
    ;;
esac

# All that the program wrote is in the files before its end is told. What lives on may hold the pipes for ever: a whole nap
# of the watch is enough. A timer of our own would cost a program, where hardly anything has to wait.
sshjob_naps=0
until { sshjob_over "$sshjob_out" && sshjob_over "$sshjob_err"; } || [ "$sshjob_naps" -gt 1 ]; do
  if sshjob_over "$sshjob_watcher"; then
    (
      set -- $sshjob_self
      while sleep 2 && sshjob_alive "$2" "$3"; do kill -USR1 "$2"; done
    ) &
    sshjob_watcher=$!
  fi
  wait "$sshjob_out" "$sshjob_err"
done
# A watch that has only just begun may not hear that it is over: it finds that out by itself, and is not waited for.
kill -TERM "$sshjob_watcher"

read -r sshjob_why sshjob_rest <"$sshjob_dir/why"
echo "$sshjob_status ${sshjob_why:-done} $sshjob_up $sshjob_ooms" 1<>"$sshjob_dir/status.new"
sshjob_tries=60
until mv "$sshjob_dir/status.new" "$sshjob_dir/status"; do
  # A full process table empties; a directory that is gone stays so.
  [ -d "$sshjob_dir" ] && [ "$sshjob_tries" -gt 0 ] || exit
  sleep 1
  sshjob_tries=$((sshjob_tries - 1))
done
