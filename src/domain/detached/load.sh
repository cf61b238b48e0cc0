# The supervisor reads its own text, and knows it by its first and last words: what a start-up file has taken, or a channel
# has cut, is never begun. Where nothing comes after it, a shell that reads a file in blocks takes it for one: no program.
# Others read byte by byte, or wait for the end; what was made for another user cannot be opened again.
sshjob_token=$4;
if [ "$2" = all ] && [ -z "$BASH_VERSION$KSH_VERSION$ZSH_VERSION" ] && [ -p /proc/self/fd/0 ] && [ -r /proc/self/fd/0 ]; then
# shellcheck disable=SC1091
IFS= read -r sshjob_head; [ "$sshjob_head" = ": $4;" ] && . /proc/self/fd/0;
else
sshjob_head=$(dd bs=$3 count=1 iflag=fullblock 2>/dev/null);
sshjob_load() { case $sshjob_head in ": $sshjob_token;"*": $sshjob_token;return 7") eval "$sshjob_head";; esac; };
sshjob_load;
fi;
if [ $? = 7 ]; then sshjob_head= ; sshjob_supervise;
elif command -v dd >/dev/null; then echo "$4 error cut" >&2;
else echo "$4 error tool dd" >&2; fi;
exit 126
