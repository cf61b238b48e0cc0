# Watches the process $1 that started at $2: until the channel ends, or the limit passes.
sshjob_guard() {
  trap "" HUP INT TERM;
  cd /;
  echo up;
  exec >/dev/null;

  # The lifeline ends with the channel, however that comes about. Its reader holds it alone.
  exec 3<&0 </dev/null;
  sleep "$sshjob_limit" 3<&- & sshjob_timer=$! ;
  { while read -r sshjob_line; do :; done; kill -KILL "$sshjob_timer"; } <&3 3<&- & sshjob_lifeline=$! ;
  exec 3<&-;
  # A timer that cannot run, or was killed, leaves the lifeline to wait for.
  wait "$sshjob_timer" || wait "$sshjob_lifeline";
  kill -KILL "$sshjob_timer" "$sshjob_lifeline";

  # A script that has ended is left in peace: what it started in the background lives on, as with plain ssh.
  if sshjob_alive "$1" "$2"; then
    if [ "$sshjob_group" = "$1" ]; then sshjob_stop -$1; else sshjob_stop $1; fi;
  fi;
  [ -z "$sshjob_dir" ] || rm -rf "$sshjob_dir";
};
