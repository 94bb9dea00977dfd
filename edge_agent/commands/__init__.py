"""The commands, one module each; ``edge_agent.cli`` loads a module only when its command is asked for."""
