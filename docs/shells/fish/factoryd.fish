# Written by docs/generate.py; change docs/completions.py instead.

# Whether the command line is at the verb, or with arguments at an argument of one of these verbs;
# -a says that no argument may be before it.
function __factoryd_at
  argparse a/alone -- $argv
  set -l verb ''
  set -l past 0
  set -l value no
  for word in (commandline -opc)[2..]
    if test $value = yes
      set value no
    else if contains -- $word --config --state-dir --runtime-dir --iterations --in-force --since --issue -n --limit --root
      set value yes
    else if string match --quiet -- '-*' $word
      continue
    else if test -z "$verb"
      set verb $word
    else
      set past 1
    end
  end
  if not set -q argv[1]
    test -z "$verb"
  else
    contains -- "$verb" $argv
    and begin
      not set -q _flag_alone
      or test $past = 0
    end
  end
end

# Asks the daemon that the command line is for; without an answer nothing is offered.
function __factoryd_names
  set -l words (commandline -opc)
  set -l place
  for i in (seq 2 (count $words))
    switch $words[$i]
      case --config --state-dir --runtime-dir
        set -a place $words[$i] (string replace --regex '^~/' "$HOME/" -- $words[(math $i + 1)])
      case '--config=*' '--state-dir=*' '--runtime-dir=*'
        set -a place $words[$i]
    end
  end
  set -l program (string replace --regex '^~/' "$HOME/" -- $words[1])
  timeout 2 (string replace --regex 'factory\w+$' factoryctl -- $program) $place --json status 2>/dev/null |
    tr ',{' '\n\n' | sed -n '/^ *"issues":/,/^ *"handoffs":/ s/^ *"\('$argv[1]'\)": *"\([^"\\]*\)".*/\2/p'
end

complete -c factoryd -f
complete -c factoryd -n __factoryd_at -a run -d 'supervise in the foreground (what happens without a verb)'
complete -c factoryd -n __factoryd_at -a check-config -d 'print the effective configuration as TOML'
complete -c factoryd -n __factoryd_at -a doctor -d 'look at everything that a daemon depends on'
complete -c factoryd -n __factoryd_at -a events -d 'print the facts of the ledger, which is only read'
complete -c factoryd -n __factoryd_at -a history -d 'print finished issues from the ledger, which is only read'
complete -c factoryd -n __factoryd_at -a reap -d 'end what a dead daemon has left running'
complete -c factoryd -n __factoryd_at -a install-units -d 'put the files of the systemd service in place'
complete -c factoryd -n __factoryd_at -a uninstall-units -d 'take the files of the systemd service away'
complete -c factoryd -s h -l help -d 'show this help message and exit'
complete -c factoryd -n '__factoryd_at' -l version -d 'show program'\''s version number and exit'
complete -c factoryd -n '__factoryd_at' -l config -r -d 'the configuration' -F
complete -c factoryd -n '__factoryd_at' -l state-dir -x -d 'what is kept' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at' -l runtime-dir -x -d 'socket, heartbeat' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at' -l once -d 'end when nothing is ready, running or cooling down'
complete -c factoryd -n '__factoryd_at' -l iterations -x -d 'ask the sources N times (1..5), then end as with --once'
complete -c factoryd -n '__factoryd_at' -l dry-run -d 'print what would be dispatched, and touch nothing'
complete -c factoryd -n '__factoryd_at run' -l config -r -d 'the configuration' -F
complete -c factoryd -n '__factoryd_at run' -l state-dir -x -d 'what is kept' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at run' -l runtime-dir -x -d 'socket, heartbeat' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at run' -l once -d 'end when nothing is ready, running or cooling down'
complete -c factoryd -n '__factoryd_at run' -l iterations -x -d 'ask the sources N times (1..5), then end as with --once'
complete -c factoryd -n '__factoryd_at run' -l dry-run -d 'print what would be dispatched, and touch nothing'
complete -c factoryd -n '__factoryd_at check-config' -l config -r -d '' -F
complete -c factoryd -n '__factoryd_at doctor' -l config -r -d '' -F
complete -c factoryd -n '__factoryd_at doctor' -l state-dir -x -d '' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at doctor' -l runtime-dir -x -d '' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at doctor' -l json -d 'answer in JSON, for programs'
complete -c factoryd -n '__factoryd_at doctor' -l in-force -x -d 'what a running daemon uses, as `factoryctl doctor` has asked it'
complete -c factoryd -n '__factoryd_at events' -l state-dir -x -d '' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at events' -l json -d 'answer in JSON, a line for each item'
complete -c factoryd -n '__factoryd_at events' -l since -x -d 'those above SEQ'
complete -c factoryd -n '__factoryd_at events' -l issue -x -d 'only those of one issue' -a '(__factoryd_names key)'
complete -c factoryd -n '__factoryd_at history' -l state-dir -x -d '' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at history' -l json -d 'answer in JSON, a line for each item'
complete -c factoryd -n '__factoryd_at -a history' -a '(__factoryd_names key)'
complete -c factoryd -n '__factoryd_at history' -s n -l limit -x -d 'the newest N (50)'
complete -c factoryd -n '__factoryd_at reap' -l config -r -d '' -F
complete -c factoryd -n '__factoryd_at reap' -l state-dir -x -d '' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at reap' -l runtime-dir -x -d '' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at reap' -l dry-run -d 'say what would be done'
complete -c factoryd -n '__factoryd_at reap' -l force -d 'kill a daemon that hangs, first'
complete -c factoryd -n '__factoryd_at reap' -l after-stop -d 'for ExecStopPost=: after a failure, leave the agents to the next daemon'
complete -c factoryd -n '__factoryd_at reap' -l quiet -d 'say nothing when there was nothing to end'
complete -c factoryd -n '__factoryd_at reap' -l json -d 'answer in JSON, for programs'
complete -c factoryd -n '__factoryd_at install-units' -l user -d 'as a service of this user'
complete -c factoryd -n '__factoryd_at install-units' -l root -x -d 'below the root of another system' -a '(__fish_complete_directories)'
complete -c factoryd -n '__factoryd_at uninstall-units' -l user -d 'as a service of this user'
complete -c factoryd -n '__factoryd_at uninstall-units' -l root -x -d 'below the root of another system' -a '(__fish_complete_directories)'
