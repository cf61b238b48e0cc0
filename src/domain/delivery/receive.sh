dd bs="$sshjob_bytes" count=1 iflag=fullblock 2>/dev/null >"$sshjob_dir/script" || sshjob_refuse space;
sshjob_sum=$(sha256sum <"$sshjob_dir/script");
[ "${sshjob_sum%% *}" = "$sshjob_sha256" ] || sshjob_refuse hash;
