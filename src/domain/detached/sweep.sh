# What nobody collected goes: beyond the time that it was given itself; an hour after its end, beyond the fifty last of this
# host; beyond five hundred, however young, for where nothing can be made any more nobody starts. What runs stays. How old
# that is which this boot has begun is known; of the rest, which may be another host's where a home is shared, and may run
# there, a clock tells: by when it last beat. What does not say for how long, as it never came to begin, stays a week.
sshjob_ours=$sshjob_at/$sshjob_token sshjob_mine=$sshjob_dir/self
sshjob_sweep() {
  cd "$sshjob_root" || return
  # Looking through them all takes longer than most jobs: once a minute is enough and, where many share a home, one of those
  # that run at the same time does it for all of them.
  # shellcheck disable=SC3013 # not in POSIX, and in every shell
  [ ! .swept -nt "$sshjob_mine" ] || return
  read -r sshjob_now sshjob_rest </proc/uptime
  sshjob_last=
  [ ! -r .swept ] || read -r sshjob_last sshjob_at_boot <.swept
  if [ -n "$sshjob_last" ] && [ "$sshjob_at_boot" = "$sshjob_boot" ] &&
    [ $((${sshjob_now%.*} - ${sshjob_last%.*})) -lt 60 ]; then return; fi
  set -- */*/*/[0-9a-f]*
  case "$*" in "$sshjob_ours" | "*/*/*/[0-9a-f]*") return ;; esac
  # A few are no work, and where there is nothing any more, nothing of ours is left.
  [ $# -le 8 ] || echo "$sshjob_now $sshjob_boot" >.swept
  sshjob_own=0
  find . -mindepth 4 -maxdepth 4 -type d -exec ls -td {} + | while read -r sshjob_dir; do
    sshjob_dir=$sshjob_root/${sshjob_dir#./}
    sshjob_self='' sshjob_born='' sshjob_at_boot='' sshjob_last='' sshjob_least='' sshjob_at_host=''
    [ ! -r "$sshjob_dir/self" ] || read -r sshjob_rest sshjob_self sshjob_born sshjob_at_boot sshjob_last \
      sshjob_rest sshjob_rest sshjob_least sshjob_at_host <"$sshjob_dir/self"
    if sshjob_alive "$sshjob_self" "$sshjob_born" || sshjob_leads; then continue; fi
    case $sshjob_least in *[!0-9]* | '') sshjob_least=10080 ;; esac
    if [ "$sshjob_at_host" = "$sshjob_host" ]; then
      sshjob_own=$((sshjob_own + 1))
      [ "$sshjob_own" -le 50 ] || [ "$sshjob_least" -lt 60 ] || sshjob_least=60
      [ "$sshjob_own" -le 500 ] || sshjob_least=0
    fi
    if [ "$sshjob_at_boot" = "$sshjob_boot" ]; then
      ! read -r sshjob_beat sshjob_rest <"$sshjob_dir/beat" || sshjob_last=${sshjob_beat:-$sshjob_last}
      [ ! -r "$sshjob_dir/status" ] ||
        read -r sshjob_rest sshjob_rest sshjob_rest sshjob_last sshjob_rest <"$sshjob_dir/status"
      [ $(((${sshjob_now%.*} - ${sshjob_last%.*}) / 60)) -ge "$sshjob_least" ] || continue
    else
      [ -z "$(find "$sshjob_dir" "$sshjob_dir/beat" -prune ! -mmin "+$sshjob_least")" ] || continue
    fi
    sshjob_at=${sshjob_dir#"$sshjob_root/"}
    sshjob_at=${sshjob_at%/*} sshjob_owner=
    [ ! -r "$sshjob_at/owner" ] || read -r sshjob_owner <"$sshjob_at/owner"
    # One that says nothing is nobody's any more.
    if [ -z "$sshjob_owner" ] || [ "$sshjob_owner" = "${sshjob_dir##*/}" ]; then
      rm -f "$sshjob_dir/self" "$sshjob_at/owner"
    fi
    sshjob_clear "$sshjob_dir/self" "$sshjob_dir"
  done
}
sshjob_sweep
# The home may have been closed, or full, for others than for us.
case $sshjob_root in "$sshjob_home") sshjob_root=$sshjob_spare ;; *) sshjob_root=$sshjob_home ;; esac
# To look whether it is sound takes a program: not for one that holds nothing.
[ -O "$sshjob_root" ] && set -- "$sshjob_root"/*/*/*/[0-9a-f]* && [ -e "$1" ] && sshjob_sound "$sshjob_root" && sshjob_sweep
# For a unit this is how it ends.
exit 0
