# Ends a process, or a group by its negative number: asks, grants ten seconds to end in good order, kills.
sshjob_stop() {
  kill -TERM "$1";
  sshjob_tries=50;
  while [ "$sshjob_tries" -gt 0 ] && kill -0 "$1"; do
    sleep 0.2 || sleep 1;
    sshjob_tries=$((sshjob_tries - 1));
  done;
  [ "$sshjob_tries" -gt 0 ] || kill -KILL "$1";
};
