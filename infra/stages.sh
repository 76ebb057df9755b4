# Stages of a long script: each is announced with its number, and the end says how long each took. To be sourced, with
# `stages` set to their number.
began=$(date +%s)
stage_began=$began
stage_number=0
stage_times=
stage() {
    end_stage
    stage_name=$1
    stage_number=$((stage_number + 1))
    printf '\n== [%s/%s] %s\n' "$stage_number" "$stages" "$stage_name"
}
end_stage() {
    now=$(date +%s)
    if [ $stage_number != 0 ]; then stage_times="$stage_times  $(printf '%4d' $((now - stage_began))) s  $stage_name
"; fi
    stage_began=$now
}
# Says how long each stage took, and how it ended: `end_stages CODE`.
end_stages() {
    end_stage
    printf '\n== [%s/%s] took\n%s' "$stage_number" "$stages" "$stage_times"
    printf '  %4d s  in all: ' $(($(date +%s) - began))
    if [ "$1" = 0 ]; then echo "done"; else echo "FAILED in \"$stage_name\""; fi
}
