# Nobody is to be told that it started where its program is not there.
[ -z "$sshjob_env" ] || (eval "$sshjob_job") || exit

# The claim: a directory that is complete takes its name, which only one can; `mv` puts those that come later inside.
sshjob_new=$sshjob_dir sshjob_dir=$sshjob_root/$sshjob_at
mv "$sshjob_new" "$sshjob_dir" 2>/dev/null
trap - EXIT
sshjob_owner=
[ ! -r "$sshjob_dir/self" ] || read -r sshjob_owner sshjob_rest <"$sshjob_dir/self"
if [ "$sshjob_owner" != "$sshjob_token" ]; then
  rm -rf "$sshjob_new" "$sshjob_dir/.$sshjob_token"
  [ -z "$sshjob_owner" ] || sshjob_attach
  sshjob_dir=
  sshjob_refuse space
fi
# Where the home could be written for one and not for the other, each finds the other and gives way.
for sshjob_other in "$sshjob_home" "$sshjob_spare"; do
  if [ "$sshjob_other" != "$sshjob_root" ] && [ -d "$sshjob_other/$sshjob_at" ] && sshjob_sound "$sshjob_other"; then
    sshjob_clear "$sshjob_dir"
    sshjob_attach
  fi
done
sshjob_answer started
exec </dev/null >/dev/null 2>&1
# The number is still its own: as it waits or, if it was killed, as that of this session, or for the moment.
[ -z "$sshjob_parent" ] || kill -KILL "$sshjob_parent"
