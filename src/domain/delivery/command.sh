case $1 in
read) sshjob_length=0; IFS= read -r sshjob_head && sshjob_length=$((${#sshjob_head} + 1));;
*) sshjob_head=$(dd bs=$2 count=1 iflag=fullblock 2>/dev/null); sshjob_length=$2;;
esac;
case $sshjob_length.$sshjob_head in
"$2.: $3;"*": $3") sshjob_token=$3; shift 3; sshjob_lib=$*; eval "$sshjob_lib $sshjob_head";;
*) [ $1 = read ] || command -v dd >/dev/null && echo "$3 error cut" >&2 || echo "$3 error tool dd" >&2;;
esac;
exit 126
