# Ends a process, or a group by its negative number: asks, grants ten seconds to end in good order, kills.
sshjob_stop() {
  kill -TERM "$1";
  sshjob_tries=50;
  while [ "$sshjob_tries" -gt 0 ] && kill -0 "$1"; do sshjob_nap; done;
  [ "$sshjob_tries" -gt 0 ] || kill -KILL "$1";
};

# Sleeps, and takes off `sshjob_tries` one for each fifth of a second: some know no less than a whole one.
sshjob_nap() {
  if sleep 0.2; then
    sshjob_tries=$((sshjob_tries - 1));
  else
    sleep 1;
    sshjob_tries=$((sshjob_tries - 5));
  fi;
};
