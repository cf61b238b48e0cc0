# Tells how many processes of this control group have been ended for want of memory; `-` where the system does not say.
sshjob_count_ooms() {
  sshjob_ooms=-
  while read -r sshjob_line; do
    case $sshjob_line in 0::/*) ;; *) continue ;; esac
    [ -r "/sys/fs/cgroup${sshjob_line#0::}/memory.events" ] || continue
    while read -r sshjob_key sshjob_rest; do
      [ "$sshjob_key" != oom_kill ] || sshjob_ooms=$sshjob_rest
    done <"/sys/fs/cgroup${sshjob_line#0::}/memory.events"
  done </proc/self/cgroup
}
