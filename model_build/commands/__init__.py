"""The commands, one module each; ``model_build.cli`` loads a module only when its command is asked for."""
