# Tells how many processes this system has ended for want of memory; `-` where it does not say. Whoever asks, and in which
# control group, counts the same.
sshjob_count_ooms() {
  sshjob_ooms=-
  while read -r sshjob_key sshjob_rest; do
    [ "$sshjob_key" != oom_kill ] || { sshjob_ooms=$sshjob_rest && break; }
  done </proc/vmstat
}
