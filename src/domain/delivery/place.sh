# `mkdir` fails where anything has that name already, a symbolic link included.
for sshjob_place in "$TMPDIR" /tmp /var/tmp "$HOME" /dev/shm; do
  case $sshjob_place in /*) ;; *) continue;; esac;
  sshjob_dir=$sshjob_place/.sshjob-$sshjob_token;
  if mkdir -m 700 "$sshjob_dir" 2>/dev/null; then
    if sshjob_fits 2>/dev/null >"$sshjob_dir/script"; then break; fi;
    rm -rf "$sshjob_dir";
  fi;
  sshjob_dir=;
done;
[ -n "$sshjob_dir" ] || sshjob_refuse space;
