# Ends what never started: with a line that the reader knows, and nothing left behind.
sshjob_refuse() {
  printf "%s error %s" "$sshjob_token" "$*" >&2;
  echo >&2;
  [ -z "$sshjob_dir" ] || rm -rf "$sshjob_dir";
  [ "$1" = program ] && exit 127;
  exit 126;
};
