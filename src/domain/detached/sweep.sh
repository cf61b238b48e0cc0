# What nobody collected goes: beyond its time, or, an hour after its end, beyond the fifty last of this host. What runs
# stays. How old that is which this boot has begun is known; of the rest, which may be another host's where a home is
# shared, and may run there, a clock tells: by when it last beat.
cd "$sshjob_root" || exit
# Looking through them all takes longer than most jobs: once a minute is enough and, where many share a home, one of those
# that run at the same time does it for all of them.
# shellcheck disable=SC3013 # not in POSIX, and in every shell
[ ! .swept -nt "$sshjob_dir/self" ] || exit
read -r sshjob_now sshjob_rest </proc/uptime
sshjob_last=
[ ! -r .swept ] || read -r sshjob_last sshjob_at_boot <.swept
if [ -n "$sshjob_last" ] && [ "$sshjob_at_boot" = "$sshjob_boot" ] &&
  [ $((${sshjob_now%.*} - ${sshjob_last%.*})) -lt 60 ]; then exit; fi
set -- */*/[0-9]* */*/.[0-9a-f]*
[ "$*" != "$sshjob_at */*/.[0-9a-f]*" ] || exit
# A few are no work, and where there is nothing any more, nothing of ours is left.
[ $# -le 8 ] || echo "$sshjob_now $sshjob_boot" >.swept
sshjob_own=0
{
  find . -mindepth 3 -maxdepth 3 -type d -mmin "+$sshjob_keep"
  ls -td -- */*/[0-9]*
} | while read -r sshjob_at; do
  sshjob_dir=$sshjob_root/${sshjob_at#./} sshjob_least=$sshjob_keep
  sshjob_self='' sshjob_born='' sshjob_at_boot='' sshjob_last='' sshjob_at_host=''
  [ ! -r "$sshjob_dir/self" ] || read -r sshjob_rest sshjob_self sshjob_born sshjob_at_boot sshjob_last \
    sshjob_rest sshjob_rest sshjob_rest sshjob_at_host <"$sshjob_dir/self"
  case $sshjob_at in ./*) ;; *) [ "$sshjob_at_host" != "$sshjob_host" ] || sshjob_own=$((sshjob_own + 1)) ;; esac
  if sshjob_alive "$sshjob_self" "$sshjob_born" || sshjob_leads; then continue; fi
  [ "$sshjob_at_host" != "$sshjob_host" ] || [ "$sshjob_own" -le 50 ] || [ "$sshjob_least" -lt 60 ] || sshjob_least=60
  if [ "$sshjob_at_boot" = "$sshjob_boot" ]; then
    ! read -r sshjob_beat sshjob_rest <"$sshjob_dir/beat" || sshjob_last=${sshjob_beat:-$sshjob_last}
    [ ! -r "$sshjob_dir/status" ] ||
      read -r sshjob_rest sshjob_rest sshjob_rest sshjob_last sshjob_rest <"$sshjob_dir/status"
    [ $(((${sshjob_now%.*} - ${sshjob_last%.*}) / 60)) -ge "$sshjob_least" ] || continue
  else
    [ -z "$(find "$sshjob_dir" "$sshjob_dir/beat" -prune ! -mmin "+$sshjob_least")" ] || continue
  fi
  sshjob_at=${sshjob_at#./}
  sshjob_clear "$sshjob_dir/self" "$sshjob_dir"
done
