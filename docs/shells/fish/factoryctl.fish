# Written by docs/generate.py; change docs/completions.py instead.

# Whether the command line is at the verb, or with arguments at an argument of one of these verbs;
# -a says that no argument may be before it.
function __factoryctl_at
  argparse a/alone -- $argv
  set -l verb ''
  set -l past 0
  set -l value no
  for word in (commandline -opc)[2..]
    if test $value = yes
      set value no
    else if contains -- $word --socket --config --state-dir --runtime-dir --grace --reason -n --lines --run --since --issue --limit
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
function __factoryctl_names
  set -l words (commandline -opc)
  set -l place
  for i in (seq 2 (count $words))
    switch $words[$i]
      case --socket --config --state-dir --runtime-dir
        set -a place $words[$i] (string replace --regex '^~/' "$HOME/" -- $words[(math $i + 1)])
      case '--socket=*' '--config=*' '--state-dir=*' '--runtime-dir=*'
        set -a place $words[$i]
    end
  end
  set -l program (string replace --regex '^~/' "$HOME/" -- $words[1])
  timeout 2 (string replace --regex 'factory\w+$' factoryctl -- $program) $place --json status 2>/dev/null |
    tr ',{' '\n\n' | sed -n '/^ *"issues":/,/^ *"handoffs":/ s/^ *"\('$argv[1]'\)": *"\([^"\\]*\)".*/\2/p'
end

complete -c factoryctl -f
complete -c factoryctl -n __factoryctl_at -a status -d 'show the daemon, its sources, issues and agents'
complete -c factoryctl -n __factoryctl_at -a submit -d 'put issues into the factory'
complete -c factoryctl -n __factoryctl_at -a kill -d 'end issues with all their agents, and prove that nothing is left'
complete -c factoryctl -n __factoryctl_at -a logs -d 'show an agent'\''s output'
complete -c factoryctl -n __factoryctl_at -a events -d 'show what happened'
complete -c factoryctl -n __factoryctl_at -a history -d 'show finished issues, or all that one issue went through'
complete -c factoryctl -n __factoryctl_at -a explain -d 'say why an issue is dispatched, or why not'
complete -c factoryctl -n __factoryctl_at -a health -d 'say whether the daemon makes progress'
complete -c factoryctl -n __factoryctl_at -a loop-status -d 'say whether the daemon makes progress'
complete -c factoryctl -n __factoryctl_at -a freeze -d 'have an issue stand still with all its agents'
complete -c factoryctl -n __factoryctl_at -a thaw -d 'have a frozen issue go on'
complete -c factoryctl -n __factoryctl_at -a retry -d 'have an ended issue begin anew, with all its attempts'
complete -c factoryctl -n __factoryctl_at -a release -d 'end an issue as done, its work being done elsewhere'
complete -c factoryctl -n __factoryctl_at -a pause -d 'dispatch nothing new; what runs goes on'
complete -c factoryctl -n __factoryctl_at -a resume -d 'go on dispatching'
complete -c factoryctl -n __factoryctl_at -a reload -d 'have the daemon read its configuration anew'
complete -c factoryctl -n __factoryctl_at -a doctor -d 'say what this machine offers, what is wrong and what to do'
complete -c factoryctl -n __factoryctl_at -a restart -d 'replace the daemon, with --keep-agents while its agents go on'
complete -c factoryctl -n __factoryctl_at -a reap-orphans -d 'end agents that nobody looks after, with or without a daemon'
complete -c factoryctl -n __factoryctl_at -a shutdown -d 'stop the daemon and every agent'
complete -c factoryctl -n __factoryctl_at -a kill-loop -d 'stop the daemon and every agent'
complete -c factoryctl -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '__factoryctl_at' -l version -d 'show program'\''s version number and exit'
complete -c factoryctl -l socket -r -d 'its control socket' -F
complete -c factoryctl -l config -r -d 'its configuration' -F
complete -c factoryctl -l state-dir -x -d 'its state directory' -a '(__fish_complete_directories)'
complete -c factoryctl -l runtime-dir -x -d 'the directory of its socket' -a '(__fish_complete_directories)'
complete -c factoryctl -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '__factoryctl_at status' -a '(__factoryctl_names "key\|name")'
complete -c factoryctl -n '__factoryctl_at status' -l watch -d 'show it again whenever it changes'
complete -c factoryctl -n '__factoryctl_at submit' -F
complete -c factoryctl -n '__factoryctl_at kill' -a '(__factoryctl_names "key\|name")'
complete -c factoryctl -n '__factoryctl_at kill' -l all -d 'end every issue'
complete -c factoryctl -n '__factoryctl_at kill' -l yes -d 'do not ask before ending every issue'
complete -c factoryctl -n '__factoryctl_at kill' -l grace -x -d 'time to end by itself (30s, 2m)'
complete -c factoryctl -n '__factoryctl_at kill' -l now -d 'give no time at all'
complete -c factoryctl -n '__factoryctl_at kill' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '__factoryctl_at kill' -l no-wait -d 'return once stopping has begun'
complete -c factoryctl -n '__factoryctl_at -a logs' -a '(__factoryctl_names "key\|name")'
complete -c factoryctl -n '__factoryctl_at logs' -s f -l follow -d 'go on until the run ends'
complete -c factoryctl -n '__factoryctl_at logs' -s n -l lines -x -d 'the last N lines (100)'
complete -c factoryctl -n '__factoryctl_at logs' -l run -x -d 'a run other than the newest'
complete -c factoryctl -n '__factoryctl_at events' -s f -l follow -d 'go on with what happens next'
complete -c factoryctl -n '__factoryctl_at events' -l since -x -d 'only those numbered above SEQ'
complete -c factoryctl -n '__factoryctl_at events' -l issue -x -d 'only those of one issue' -a '(__factoryctl_names key)'
complete -c factoryctl -n '__factoryctl_at -a history' -a '(__factoryctl_names key)'
complete -c factoryctl -n '__factoryctl_at history' -s n -l limit -x -d 'the newest N (50)'
complete -c factoryctl -n '__factoryctl_at -a explain' -a '(__factoryctl_names key)'
complete -c factoryctl -n '__factoryctl_at -a freeze' -a '(__factoryctl_names key)'
complete -c factoryctl -n '__factoryctl_at freeze' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '__factoryctl_at -a thaw' -a '(__factoryctl_names key)'
complete -c factoryctl -n '__factoryctl_at -a retry' -a '(__factoryctl_names key)'
complete -c factoryctl -n '__factoryctl_at retry' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '__factoryctl_at -a release' -a '(__factoryctl_names key)'
complete -c factoryctl -n '__factoryctl_at release' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '__factoryctl_at pause' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '__factoryctl_at restart' -l keep-agents -d 'the agents go on meanwhile'
complete -c factoryctl -n '__factoryctl_at reap-orphans' -l dry-run -d 'say what would be done'
