sshjob_head=$(dd bs=$1 count=1 iflag=fullblock 2>/dev/null);
case $sshjob_head in
"#$2"*"#$2") eval "$sshjob_head";;
*) command -v dd >/dev/null && echo "$2 error cut" >&2 || echo "$2 error tool dd" >&2;;
esac;
exit 126
