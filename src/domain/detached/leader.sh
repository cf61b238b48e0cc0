# Arguments: the attempt's directory, the umask, what to run. What has no record here has not begun.
read -r sshjob_stat </proc/$$/stat
sshjob_dir=$1 sshjob_mask=$2
shift 2
sshjob_born() { shift 19; echo "$$ $1 recorded"; }
sshjob_born ${sshjob_stat##*") "} 1<>"$sshjob_dir/leader" || exit 126
umask "$sshjob_mask"
unset sshjob_dir sshjob_mask sshjob_stat
exec "$@"
