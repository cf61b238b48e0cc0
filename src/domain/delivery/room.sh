for sshjob_tool in dd mkdir sha256sum rm; do
  command -v "$sshjob_tool" >/dev/null || sshjob_refuse tool "$sshjob_tool";
done;

# What is sent once must not meet a full disk: as many bytes as the script has are written first, by builtins alone.
sshjob_block=0123456789abcdef;
for sshjob_left in 1 2 3 4; do sshjob_block=$sshjob_block$sshjob_block$sshjob_block$sshjob_block; done;
sshjob_fits() {
  sshjob_left=$sshjob_bytes;
  while [ "$sshjob_left" -gt 0 ]; do
    echo "$sshjob_block" || return 1;
    sshjob_left=$((sshjob_left - 4096));
  done;
};
