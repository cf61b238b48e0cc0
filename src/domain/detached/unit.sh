# The supervisor is a transient unit of systemd's, so that no end of a login ends it. What a unit is given by its manager
# is everybody's to read: all that it needs comes by pipes and files in a place of root's, which it removes at once.
for sshjob_tool in systemd-run setsid mkdir mkfifo cat rm; do
  command -v "$sshjob_tool" >/dev/null || sshjob_refuse tool "$sshjob_tool"
done
sshjob_dir=/run/sshjob-$sshjob_token
exec 3<&0 </dev/null
mkdir -m 700 "$sshjob_dir" 2>/dev/null || sshjob_refuse space
mkfifo "$sshjob_dir/in" "$sshjob_dir/answer" 2>/dev/null || sshjob_refuse space
sshjob_mask=$(umask)
{
  export -p
  echo "sshjob_unit='$sshjob_dir'"
  echo "cd \"\$PWD\"; umask $sshjob_mask"
  # shellcheck disable=SC2016 # for later
  echo 'exec <"$sshjob_unit/in" >"$sshjob_unit/answer" 2>&1; rm -rf "$sshjob_unit"'
  echo "sshjob_parent= sshjob_session= sshjob_stat= $sshjob_facts$sshjob_supervisor"
} >"$sshjob_dir/supervisor" 2>/dev/null || sshjob_refuse space

# Its end is the supervisor's, and nobody else's: what a script leaves behind lives on, whoever runs out of memory.
sshjob_run() {
  systemd-run --quiet "--unit=sshjob-$sshjob_token" --property=KillMode=process "$@" \
    /bin/sh "$sshjob_dir/supervisor" 3<&- >/dev/null 2>&1
}
# The first is for systemd 243 and later.
sshjob_run --collect --property=OOMPolicy=continue || sshjob_run || sshjob_refuse supervisor
cat <&3 >"$sshjob_dir/in" 2>/dev/null &
exec 3<&-
sshjob_answer=$sshjob_dir/answer sshjob_dir=
sshjob_hear <"$sshjob_answer"
