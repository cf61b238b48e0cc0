# What nobody collected goes: beyond its time, or, an hour after its end, beyond the fifty last. What runs stays.
cd "$sshjob_root" || exit
# Where many share a home, one of those that run at the same time does it for all of them.
# shellcheck disable=SC3013 # not in POSIX, and in every shell
[ ! .swept -nt "$sshjob_dir/self" ] || exit
set -- */*/[0-9]* */*/.[0-9a-f]*
[ "$*" != "$sshjob_at */*/.[0-9a-f]*" ] || exit
[ $# -le 50 ] || true >.swept
set -- */*/[0-9]*
{
  find . -mindepth 3 -maxdepth 3 -type d -mmin "+$sshjob_keep"
  if [ $# -gt 50 ]; then
    # shellcheck disable=SC2046 # names of ours: nothing in them splits
    set -- $(ls -td -- */*/[0-9]*)
    shift 50
    [ $# = 0 ] || find "$@" -prune -mmin +60
  fi
} | while read -r sshjob_at; do
  sshjob_dir=$sshjob_root/${sshjob_at#./} sshjob_self='' sshjob_born=''
  [ ! -r "$sshjob_dir/self" ] || read -r sshjob_rest sshjob_self sshjob_born sshjob_rest <"$sshjob_dir/self"
  if sshjob_alive "$sshjob_self" "$sshjob_born" || sshjob_leads; then continue; fi
  sshjob_at=${sshjob_at#./}
  sshjob_clear "$sshjob_dir/self" "$sshjob_dir"
done
