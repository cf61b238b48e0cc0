# "$@" is what to run.
sshjob_start() {
  [ -z "$sshjob_setsid" ] || set -- "$sshjob_setsid" "$@";
  echo "$sshjob_token start";
  echo "$sshjob_token start" >&2;
  exec "$@";
};
