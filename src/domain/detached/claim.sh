# Nobody is to be told that it started where its program is not there.
if [ -z "$sshjob_env" ]; then sshjob_seek; else (eval "$sshjob_job") || exit; fi

# The claim: a file that only one can make, when all is there that its owner is to have, and a builtin does.
sshjob_claim=$sshjob_root/$sshjob_at/owner sshjob_made=
set -C
{ sshjob_made=yes && echo "$sshjob_token"; } 2>/dev/null >"$sshjob_claim"
set +C
trap - EXIT
sshjob_owner=
[ ! -r "$sshjob_claim" ] || read -r sshjob_owner <"$sshjob_claim"
if [ "$sshjob_owner" != "$sshjob_token" ]; then
  # A full disk takes the file and not its text.
  [ -z "$sshjob_made" ] || rm -f "$sshjob_claim"
  sshjob_clear "$sshjob_dir"
  [ -n "$sshjob_made" ] || [ ! -e "$sshjob_claim" ] || sshjob_attach
  sshjob_dir=
  sshjob_refuse space
fi
# Where the home could be written for one and not for the other, each finds the other and gives way.
for sshjob_other in "$sshjob_home" "$sshjob_spare"; do
  if [ "$sshjob_other" != "$sshjob_root" ] && sshjob_has "$sshjob_other" "$sshjob_at"; then
    sshjob_clear "$sshjob_claim" "$sshjob_dir"
    sshjob_attach
  fi
done
sshjob_answer started
exec </dev/null >/dev/null 2>&1
# Whatever became of it, the number is still its own: that of a session for as long as anybody is in it, another one for as
# long as it is our parent's.
if [ "$sshjob_parent" != "$sshjob_session" ]; then
  read -r sshjob_stat <"/proc/$sshjob_pid/stat"
  set -- ${sshjob_stat#*") "}
  [ "$2" = "$sshjob_parent" ] || sshjob_parent=
fi
[ -z "$sshjob_parent" ] || kill -KILL "$sshjob_parent"
