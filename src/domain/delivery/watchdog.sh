# Watches the process $1 that started at $2: until the channel ends, or the limit passes.
sshjob_guard() {
  sshjob_leader=$1 sshjob_since=$2;
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
  if sshjob_alive "$sshjob_leader" "$sshjob_since"; then
    [ "$sshjob_group" = "$sshjob_leader" ] && sshjob_target=-$sshjob_leader || sshjob_target=$sshjob_leader;
    # Whoever ends a group is not in it.
    [ -n "$sshjob_dir" ] || exec $sshjob_setsid /bin/sh -c \
      "$sshjob_lib sshjob_alive $sshjob_leader $sshjob_since && sshjob_stop $sshjob_target" sshjob-watchdog "$sshjob_token";
    sshjob_stop "$sshjob_target";
  fi;
  [ -z "$sshjob_dir" ] || rm -rf "$sshjob_dir";
};
