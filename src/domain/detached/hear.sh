# Waits for what the supervisor answers; whatever else its tools say is passed over.
sshjob_hear() {
  while read -r sshjob_line; do
    case $sshjob_line in
      "$sshjob_token error program "*) echo "$sshjob_line" >&2; exit 127 ;;
      "$sshjob_token error "*) echo "$sshjob_line" >&2; exit 126 ;;
      "$sshjob_token "*)
        echo "$sshjob_token start" >&2
        echo "$sshjob_token start"
        echo "$sshjob_line"
        exit 0
        ;;
    esac
  done
  sshjob_refuse supervisor
}
