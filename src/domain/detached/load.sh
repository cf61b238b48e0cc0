# "$3" is whether the text is `all` that comes, "$4" how many bytes it has, "$5" the token. The supervisor reads its own
# text, and knows it by its first and last words: one that a start-up file has eaten from, or that was cut off, is never run.
# Where nothing comes after it, a shell that reads files in blocks is given its input as a file, which starts no program;
# others read byte by byte, or wait for the end. A pipe that another user made may be there and not be opened. dash since
# 0.5.13 only looks at a line that it reads from standard input, and takes it later, when the rest has been read another way:
# it is read from the pipe opened anew.
unset sshjob_head;
sshjob_token=$5;
if [ "$3" = all ] && [ -z "$BASH_VERSION$KSH_VERSION$ZSH_VERSION" ] && [ -p /proc/self/fd/0 ] &&
IFS= read -r sshjob_head 2>/dev/null </proc/self/fd/0; then
# shellcheck disable=SC2064
trap "echo $5 error cut >&2" EXIT;
# shellcheck disable=SC1091
[ "$sshjob_head" = ": $5;" ] && . /proc/self/fd/0;
else
sshjob_head=$(dd bs=$4 count=1 iflag=fullblock 2>/dev/null);
sshjob_load() { case $sshjob_head in ": $sshjob_token;"*": $sshjob_token;return 7") eval "$sshjob_head";; esac; };
sshjob_load;
fi;
if [ $? = 7 ]; then trap - EXIT; sshjob_head=; sshjob_supervise; exit; fi;
trap - EXIT;
command -v dd >/dev/null && echo "$5 error cut" >&2 || echo "$5 error tool dd" >&2;
exit 126
